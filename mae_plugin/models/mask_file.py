"""Reads a mask of pixels from a file."""

from __future__ import annotations

from pathlib import Path

import mmcv
import numpy as np
import torch
from torch import Tensor

from .masking import MASK_KINDS


def read_mask(path: str, size: tuple[int, int]) -> Tensor:
    """Reads a mask of pixels from an ``.npy`` file or an image; every pixel but 0 is marked.

    Args:
        path: the file, as given by ``mask_kind``.
        size: the height and width that the mask must have.

    Returns:
        (H, W) bool.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if the mask has another size.
    """
    if not Path(path).is_file():
        raise FileNotFoundError(f'mask_kind={path!r} is neither {", ".join(MASK_KINDS)} nor a file')
    mask = np.load(path) if path.endswith('.npy') else mmcv.imread(path, 'grayscale')
    if mask.shape != tuple(size):
        raise ValueError(f'the mask {path} has shape {mask.shape}, but img_size is {tuple(size)}')
    return torch.from_numpy(mask != 0)
