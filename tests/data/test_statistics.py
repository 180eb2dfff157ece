"""Mean and standard deviation per channel, in one pass and over several processes."""

import numpy as np
import pytest
import tifffile
from mae_plugin.data.statistics import channel_statistics

from ..conftest import PRETRAIN, ROOT
from .test_skipped_images import run_here

CONFIG = dict(bands='configs/mae/mae_vit-mini-p12_bands-120px.py', colors=PRETRAIN)
PHOTOMETRIC = dict(bands='minisblack', colors='rgb')
LOADING = dict(
    bands="dict(type='LoadCenterCrop', scale=120, crop_ratio=1, color_type='unchanged')",
    colors="dict(type='LoadImageFromFile')",
)


class Images(list):
    def __getitem__(self, index):
        return dict(img=super().__getitem__(index))


@pytest.mark.parametrize('workers', [0, 2])
def test_equals_numpy_on_all_pixels_at_once(workers):
    """Images of several sizes, a mean a million times the deviation, and pixels without data."""
    random = np.random.default_rng(0)
    images = [random.normal([5.0, -3.0, 1e6], [1.0, 2.0, 1.0], (4 + i, 9, 3)) for i in range(7)]
    images[2][:2], images[3][:] = -9999, -9999
    images[4][0, 0, 1] = -9999  # nodata in one channel alone is a value
    pixels = np.concatenate([image.reshape(-1, 3) for image in images])
    pixels = pixels[~(pixels == -9999).all(axis=1)]
    found = channel_statistics(Images(images), nodata=-9999, num_workers=workers)
    np.testing.assert_allclose(found.mean, pixels.mean(axis=0), rtol=1e-12)
    np.testing.assert_allclose(found.std, pixels.std(axis=0), rtol=1e-9)
    assert (found.images, found.pixels) == (7, len(pixels))


def test_some_images():
    images = Images(np.full((2, 2), i, np.uint16) for i in range(100))
    found = channel_statistics(images, max_images=10)
    assert (found.images, found.pixels) == (10, 40)
    assert (
        found
        == channel_statistics(images, max_images=10)
        != channel_statistics(images, max_images=10, seed=1)
    )
    with pytest.raises(ValueError, match='no pixels with data'):
        channel_statistics(Images([np.zeros((2, 2))]), nodata=0)
    with pytest.raises(ValueError, match='some images have . channels and others .'):
        channel_statistics(Images([np.zeros((2, 2, 2)), np.zeros((2, 2, 1))]))


def numbers(line: str, name: str) -> list[float]:
    assert line.startswith(f'{name}=[') and line.endswith('],')
    return [float(number) for number in line[len(name) + 2 : -2].split(',')]


@pytest.mark.parametrize('kind', ['bands', 'colors'])
def test_the_tool(tmp_path, capsys, monkeypatch, kind):
    """A shipped config of 13 bands, and mmpretrain's reading, with values printed as RGB."""
    random = np.random.default_rng(0)
    (tmp_path / 'train').mkdir()
    pixels = random.integers(1, 256, (6, 120, 120, 13 if kind == 'bands' else 3)).astype(np.uint8)
    pixels[:, :20] = 0
    pixels[:, 20:, :, 0] //= 2
    for i, image in enumerate(pixels):
        tifffile.imwrite(
            tmp_path / f'train/{i}.tif', image, planarconfig='contig', photometric=PHOTOMETRIC[kind]
        )
    (tmp_path / 'own.py').write_text(
        f"_base_ = '{ROOT}/{CONFIG[kind]}'\ntrain_dataloader = "
        f'dict(dataset=dict(pipeline=[{LOADING[kind]}]))\n'
    )
    arguments = [tmp_path / 'own.py', '--data-root', tmp_path, '--num-workers', 0]
    run_here(monkeypatch, 'channel_stats.py', *arguments)
    seen = pixels[:, 20:] if kind == 'bands' else pixels
    count, mean, std = capsys.readouterr().out.strip().splitlines()[-3:]
    assert count == f'6 images, {seen[..., 0].size:,} pixels'
    np.testing.assert_allclose(numbers(mean, 'mean'), seen.mean((0, 1, 2)), rtol=1e-5)
    np.testing.assert_allclose(numbers(std, 'std'), seen.std((0, 1, 2)), rtol=1e-5)
