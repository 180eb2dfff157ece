"""Batches of images that differ in channels, number type or size are errors that name two files."""

from types import SimpleNamespace

import pytest
import torch
from mae_plugin.data.collate import CheckedCollate
from mae_plugin.engine.loops.dataloader import make_resumable
from mmpretrain.structures import DataSample


def sample(path: str, *shape: int, dtype: torch.dtype = torch.uint8) -> dict:
    return dict(
        inputs=torch.zeros(shape, dtype=dtype),
        data_samples=DataSample(metainfo=dict(img_path=path)),
    )


@pytest.mark.parametrize('kind', ['default_collate', 'pseudo_collate'])
def test_images_that_do_not_go_together(kind):
    """torch's error was only that it cannot stack them."""
    collate = CheckedCollate(dict(type=kind))
    assert len(collate([sample('a.tif', 3, 8, 8), sample('b.tif', 3, 8, 8)])['inputs']) == 2
    with pytest.raises(
        ValueError, match=r'a\.tif has the shape \(3, 8, 8\) .*, c\.tif has the shape \(4, 8, 8\)'
    ):
        collate([sample('a.tif', 3, 8, 8), sample('b.tif', 3, 8, 8), sample('c.tif', 4, 8, 8)])
    with pytest.raises(
        ValueError, match=r'a\.tif .* and torch\.uint8, b\.tif .* and torch\.float32'
    ):
        collate([sample('a.tif', 3, 8, 8), sample('b.tif', 3, 8, 8, dtype=torch.float32)])
    # The training loops check the images for any collate function of the config.
    config = dict(dataset=dict(), sampler=dict(type='DefaultSampler'), collate_fn=dict(type=kind))
    built = make_resumable(config, 0, False, SimpleNamespace(accumulate=1, size=1))['collate_fn']
    assert isinstance(built, CheckedCollate) and built.collate.func is collate.collate.func
    if kind == 'default_collate':
        with pytest.raises(
            ValueError,
            match=r'a\.tif has the shape \(3, 8, 8\) .*, b\.tif has the shape \(3, 9, 8\)',
        ):
            collate([sample('a.tif', 3, 8, 8), sample('b.tif', 3, 9, 8)])
