"""Tiny models and generated images that the tests share."""

from __future__ import annotations

import copy
from pathlib import Path

import mae_plugin  # noqa: F401  (registers the models)
import numpy as np
import pytest
import torch
from mmpretrain.registry import MODELS
from PIL import Image

TINY = dict(
    type='MAE',
    backbone=dict(
        type='MAEViT',
        arch=dict(embed_dims=32, num_layers=2, num_heads=2, feedforward_channels=64),
        img_size=32,
        patch_size=8,
    ),
    neck=dict(type='MAEPretrainDecoder', decoder_embed_dim=16, decoder_depth=2, decoder_num_heads=2),
    head=dict(type='MAEPretrainHead', norm_pix=True, loss=dict(type='PixelReconstructionLoss', criterion='L2')),
)


def tiny_config(backbone: dict | None = None, neck: dict | None = None, head: dict | None = None) -> dict:
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


@pytest.fixture
def imagenet_like(tmp_path: Path) -> Path:
    """A dataset of two classes in the layout of ImageNet: train/<class>/*.jpg and val/<class>/*.jpg."""
    for part, number in (('train', 8), ('val', 4)):
        for i, name in enumerate(('n01440764', 'n01443537')):
            write_jpegs(tmp_path / 'images' / part / name, number, seed=i)
    return tmp_path / 'images'
