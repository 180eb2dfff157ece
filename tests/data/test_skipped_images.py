"""Special files, names that are not text, too many open files, and the share of skipped images."""

import json
import os
import runpy
import sys
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from mae_plugin import apis
from mae_plugin.analysis.features import save_features
from mae_plugin.cli import launch
from mae_plugin.data import IndexedImages, skipped_images
from mae_plugin.data.skipped_images import SkippedImages, exceeds_share
from mae_plugin.engine.loops.sampler import ResumableSampler, SeededDataset

from ..conftest import ROOT, write_jpegs
from .test_indexed_images import names

TRAIN = [dict(type='LoadRandomCrop', scale=16)]


def test_names_that_are_not_utf8(tmp_path, log):
    """Skipping a damaged image of such a name ended training; every report accepts it now."""
    root = tmp_path / 'in'
    write_jpegs(root, 12)
    bad = os.fsencode(root) + b'/caf\xe9.jpg'
    with open(bad, 'wb') as file:
        file.write(b'no image')
    dataset = IndexedImages(str(root), index_dir=str(tmp_path), pipeline=TRAIN)
    assert len(dataset) == 13 and all(dataset[i]['img'].shape == (16, 16, 3) for i in range(13))
    logged = [line for line in log if line.startswith('Skipped')]
    assert len(logged) == 1 and f'{root}/caf\\xe9.jpg: ' in logged[0]
    logged[0].encode()
    files = names(dataset)
    for ending in ('npz', 'parquet'):
        if ending == 'parquet':
            pytest.importorskip('pyarrow')
        save_features(tmp_path / f'features.{ending}', np.zeros((13, 2), np.float32), files)
    assert np.load(tmp_path / 'features.npz')['files'][-1] == f'{root}/caf\\xe9.jpg'


def run_here(monkeypatch, tool: str, *arguments: object) -> None:
    """Runs a tool in this process."""
    monkeypatch.setattr(sys, 'argv', [tool, *map(str, arguments)])
    runpy.run_path(str(ROOT / 'tools' / tool), run_name='__main__')


def test_names_that_look_like_markup(tmp_path, monkeypatch, capsys):
    """b]c.jpg in a folder a[ ended prepare in rich's MarkupError, after all shards were written."""
    root = tmp_path / 'in' / 'a['
    write_jpegs(root, 1)
    (root / 'b]c.jpg').write_bytes(b'no image')
    (root / '[').mkdir()
    (root / '[' / 'red]x:smile:.jpg').write_bytes(b'no image')
    with open(os.fsencode(root) + b'/caf\xe9.jpg', 'wb') as file:
        file.write(b'no image')
    run_here(monkeypatch, 'prepare_dataset.py', tmp_path, tmp_path / 'out[/x]', '--workers', '1')
    printed = capsys.readouterr().out
    for name in ('in/a[/b]c.jpg', 'in/a[/[/red]x:smile:.jpg', 'in/a[/caf\\xe9.jpg'):
        assert f'left out {name}: ' in printed
    assert '1 images' in printed and f'3 left out: {tmp_path}/out[/x]/manifest.json' in printed
    manifest = json.loads((tmp_path / 'out[/x]' / 'manifest.json').read_text())
    assert os.fsencode(manifest['skipped'][2]['name']) == b'in/a[/caf\xe9.jpg'


def test_names_that_look_like_markup_in_reconstruct(tmp_path, monkeypatch, capsys):
    """It ended in rich's MarkupError after the figures had been drawn."""
    paths = ['a[/b]c.jpg', 'red]x:smile:.jpg', 'caf\udce9.jpg']
    results = [SimpleNamespace(path=path, mask=torch.ones(1), loss=1.0) for path in paths]
    fakes = dict(
        ReconstructionInferencer=lambda *_, **__: lambda *_, **__: results,
        draw_grid=None,
        save_figure=None,
    )
    for name, fake in fakes.items():
        monkeypatch.setattr(apis, name, fake or (lambda *_: None))
    monkeypatch.setattr(launch, 'read_model_arguments', lambda args: ('name', False, paths))
    run_here(monkeypatch, 'reconstruct.py', 'name', 'None', 'x.jpg', '--out', tmp_path)
    printed = capsys.readouterr().out
    assert all(name in printed for name in ('a[/b]c.jpg', 'red]x:smile:.jpg', 'caf\\xe9.jpg'))


def ended(share: float, images: int, seed: int) -> int | None:
    """Returns after how many images a run with this share of damaged ones ends, or None."""
    skipped = SkippedImages(0.1)
    broken = torch.rand(images, generator=torch.Generator().manual_seed(seed)) < share
    for number, is_broken in enumerate(broken.tolist()):
        skipped.count()
        if is_broken:
            try:
                skipped.skip('x.jpg', ValueError('broken'))
            except RuntimeError:
                return number + 1
    return None


@pytest.mark.parametrize('share', [0.05, 0.07, 0.08, 0.09])
def test_a_share_that_is_allowed_never_ends_a_run(share):
    """With 5 / 7 / 8 / 9 % of damaged images, 5 / 26 / 45 / 69 of 100 runs ended by chance."""
    assert [ended(share, 1000, seed) for seed in range(100)] == [None] * 100


@pytest.mark.parametrize(('share', 'within'), [(0.2, 2000), (0.5, 150)])
def test_a_share_that_is_too_large_ends_every_run(share, within):
    assert all(ended(share, within, seed) for seed in range(100))


class Fails(torch.utils.data.Dataset):
    """Images of which a share is damaged and replaced by others, as in mmengine's datasets."""

    def __init__(self, share: float, number: int, seed: int) -> None:
        self.broken = (
            torch.rand(number, generator=torch.Generator().manual_seed(seed)) < share
        ).tolist()
        self.skipped = SkippedImages(0.1)
        self.wanted = []

    def __len__(self) -> int:
        return len(self.broken)

    def __getitem__(self, index: int) -> int:
        self.wanted.append(index)
        self.skipped.count()
        while self.broken[index]:
            self.skipped.skip(f'{index}.jpg', ValueError('broken'))
            index = np.random.randint(len(self))
            self.skipped.count()
        return index


def ended_with_repeats(
    share: float, seed: int, monkeypatch: pytest.MonkeyPatch, repeats: int = 32
) -> bool:
    """Returns whether a run of 6,400 crops, 32 of each image in a row, ends."""
    monkeypatch.setattr(skipped_images, 'print_log', lambda *args, **kwargs: None)
    inner = Fails(share, 6400, seed)
    dataset = SeededDataset(inner)
    try:
        for key in ResumableSampler(dataset, seed, repeats=repeats):
            dataset[key]
    except RuntimeError:
        return True
    assert len(inner.wanted) == 6400 and len(set(inner.wanted)) == 6400 // repeats
    # Images are counted, not crops: requested ones, and replacements of damaged ones.
    assert inner.skipped.requested == 6400 // repeats + inner.skipped.skipped
    return False


def test_crops_of_one_broken_image_count_as_one(monkeypatch):
    """Damaged images came in runs of length ``repeats``, and ended runs below the allowed share."""
    assert not any(ended_with_repeats(0.09, seed, monkeypatch) for seed in (4, 7, 8))
    assert ended_with_repeats(0.5, 0, monkeypatch)


def test_the_limits_of_shares():
    assert exceeds_share(1, 1000, 0.0) and not exceeds_share(0, 1000, 0.0)
    assert not exceeds_share(1000, 1000, 1.0)
    assert not exceeds_share(100_000, 1_000_000, 0.1) and exceeds_share(102_000, 1_000_000, 0.1)
