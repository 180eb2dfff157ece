"""Tiny models, generated images and runs of the tools that the tests share."""

from __future__ import annotations

import copy
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import mae_plugin  # noqa: F401  (registers the models)
import numpy as np
import pytest
import torch
from mmengine.logging import MMLogger
from mmengine.registry import DefaultScope
from mmpretrain.registry import MODELS
from PIL import Image

# Indices of data, in place of those in the home folder.
_CACHE = tempfile.TemporaryDirectory()
os.environ['XDG_CACHE_HOME'] = _CACHE.name

# The tools import this for the sake of a whole process, which tests that call a tool within theirs
# are not.
sys.modules['early_signals'] = ModuleType('early_signals')
# Tools that run within a process of the tests import their neighbors.
sys.path.append(str(Path(__file__).resolve().parents[1] / 'tools'))

# torch starts the threads of its backward pass once, for the devices of that moment. Afterwards the
# fake GPU of tests/test_device.py starts no thread, with which processes could not be forked.
torch.ones(1, requires_grad=True).sum().backward()

_HANDLERS = {
    number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGUSR1, signal.SIGINT)
}
# Shells start background processes with SIGINT ignored.
_HANDLERS[signal.SIGINT] = signal.default_int_handler

ROOT = Path(__file__).resolve().parents[1]
PRETRAIN = 'configs/mae/mae_vit-base-p16_8xb512-amp-coslr-300e_in1k.py'
LINEAR = 'configs/mae/benchmarks/vit-base-p16_8xb2048-linear-coslr-90e_in1k.py'
FINETUNE = 'configs/mae/benchmarks/vit-base-p16_8xb128-coslr-100e_in1k.py'

SMALL = [
    'model.backbone.arch=deit-tiny',
    'model.backbone.img_size=64',
    'train_dataloader.num_workers=0',
    'train_dataloader.dataset.pipeline.0.scale=64',
    'default_hooks.logger.interval=1',
]
SMALL_PRETRAIN = [
    *SMALL,
    'model.neck.decoder_embed_dim=64',
    'model.neck.decoder_depth=1',
    'model.neck.decoder_num_heads=2',
    'train_dataloader.batch_size=4',
]
SMALL_FINETUNE = [
    *SMALL,
    'model.head.in_channels=192',
    'train_dataloader.dataset.indices=16',
    'train_dataloader.batch_size=8',
]
SMALL_TEST = [
    'model.backbone.arch=deit-tiny',
    'model.backbone.img_size=64',
    'model.head.in_channels=192',
    *(
        f'{loader}_dataloader.{setting}'
        for loader in ('val', 'test')
        for setting in (
            'num_workers=0',
            'dataset.pipeline.0.scale=64',
            'dataset.indices=20',
        )
    ),
]

TINY = dict(
    type='MAE',
    backbone=dict(
        type='MAEViT',
        arch=dict(embed_dims=32, num_layers=2, num_heads=2, feedforward_channels=64),
        img_size=32,
        patch_size=8,
    ),
    neck=dict(
        type='MAEPretrainDecoder', decoder_embed_dim=16, decoder_depth=2, decoder_num_heads=2
    ),
    head=dict(
        type='MAEPretrainHead',
        norm_pix=True,
        loss=dict(type='PixelReconstructionLoss', criterion='L2'),
    ),
)


def tiny_config(
    backbone: dict | None = None, neck: dict | None = None, head: dict | None = None
) -> dict:
    """A config of a tiny MAE with changes to its parts."""
    config = copy.deepcopy(TINY)
    for part, changes in dict(backbone=backbone, neck=neck, head=head).items():
        config[part].update(changes or {})
    return config


@pytest.fixture
def build_tiny():
    """Builds a tiny MAE with changes to its parts, weights drawn from a fixed seed."""

    def build(**changes: dict) -> torch.nn.Module:
        torch.manual_seed(0)
        return MODELS.build(tiny_config(**changes))

    return build


def write_jpegs(folder: Path, number: int, size: tuple[int, int] = (48, 40), seed: int = 0) -> None:
    """Writes smooth random JPEGs."""
    folder.mkdir(parents=True, exist_ok=True)
    random = np.random.default_rng(seed)
    for i in range(number):
        coarse = Image.fromarray(random.integers(0, 256, (4, 5, 3), dtype=np.uint8))
        coarse.resize(size, Image.Resampling.BICUBIC).save(folder / f'{i:03d}.jpg', quality=95)


def run(*command: object, fails: bool = False, cwd: Path = ROOT) -> subprocess.CompletedProcess:
    """Runs a tool in a process of its own."""
    done = subprocess.run(
        [sys.executable, *map(str, command)], cwd=cwd, capture_output=True, text=True
    )
    assert bool(done.returncode) == fails, done.stdout[-4000:] + done.stderr[-4000:]
    return done


def scalars(work_dir: Path) -> list[dict]:
    """Every training record of the runs in a work dir, oldest run first."""
    lines = [
        line
        for file in sorted(work_dir.glob('*/vis_data/scalars.json'))
        for line in file.read_text().splitlines()
    ]
    return [record for record in map(json.loads, lines) if 'loss' in record]


@pytest.fixture(scope='module', autouse=True)
def globals_of_mmengine() -> Iterator[None]:
    """Restores mmengine's default scope and its loggers, which every Runner sets for the process."""
    managers = (DefaultScope, MMLogger)
    before = [dict(manager._instance_dict) for manager in managers]
    yield
    for manager, instances in zip(managers, before, strict=True):
        manager._instance_dict.clear()
        manager._instance_dict.update(instances)


@pytest.fixture(autouse=True)
def signals_of_no_other_run() -> Iterator[None]:
    """Restores the signal handlers, which a run that ends with an error leaves in place until the
    next signal.
    """
    for number, handler in _HANDLERS.items():
        signal.signal(number, handler)
    yield
    for number, handler in _HANDLERS.items():
        signal.signal(number, handler)


@pytest.fixture(scope='session')
def imagenet(tmp_path_factory) -> Path:
    """ImageNet's layout with its 1,000 class folders, one JPEG each, in train/ and val/."""
    root = tmp_path_factory.mktemp('imagenet')
    write_jpegs(root / 'source', 10, size=(80, 72))
    sources = sorted((root / 'source').iterdir())
    for part in ('train', 'val'):
        for i in range(1000):
            folder = root / part / f'n{i:08d}'
            folder.mkdir(parents=True)
            shutil.copy(sources[i % 10], folder / f'{folder.name}.JPEG')
    shutil.rmtree(root / 'source')
    return root


@pytest.fixture(scope='module')
def images(tmp_path_factory) -> Path:
    """A folder of 23 JPEGs."""
    folder = tmp_path_factory.mktemp('images')
    write_jpegs(folder, 23)
    return folder


@pytest.fixture
def small_disk():
    """Yields a file system of 3 MB, enough for a few of the tiny model's checkpoints."""
    folder = Path(tempfile.mkdtemp())
    mounted = subprocess.run(
        ['mount', '-t', 'tmpfs', '-o', 'size=3m', 'tmpfs', folder], capture_output=True, text=True
    )
    if mounted.returncode:
        folder.rmdir()
        pytest.skip(f'no file system can be mounted here: {mounted.stderr.strip()}')
    yield folder
    # Lazily, as the run's log is still open.
    subprocess.run(['umount', '--lazy', folder], check=True)
    folder.rmdir()
