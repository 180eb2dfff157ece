"""Masks of patches: how they are drawn, given and converted. Imports torch alone.

A *mask* is (B, L) with 1 = removed and 0 = visible, for L patches in raster order.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from .patches import invert_permutation, patchify


class Masking(NamedTuple):
    """Which patches an encoder sees, in the forms that are needed.

    Attributes:
        ids_keep: (B, L_visible) indices of the visible patches, in the encoder's order.
        ids_removed: (B, L - L_visible) indices of the others.
        ids_restore: (B, L) position of every patch in the shuffled order, visible patches first.
        mask: (B, L) float, 1 = removed.
    """

    ids_keep: Tensor
    ids_removed: Tensor
    ids_restore: Tensor
    mask: Tensor


def check_mask_ratio(mask_ratio: float) -> float:
    """Returns ``mask_ratio`` if it lies in [0, 1), else raises ValueError."""
    if not 0 <= mask_ratio < 1:
        raise ValueError(
            f'mask_ratio={mask_ratio} is out of range: it is the share of patches to remove, at '
            'least 0 and less than 1'
        )
    return mask_ratio


def num_visible(num_patches: int, mask_ratio: float) -> int:
    """How many of ``num_patches`` stay visible: at least one, and none lost to rounding (100 at 0.9
    keep 10).
    """
    return max(1, int(num_patches * (1 - check_mask_ratio(mask_ratio)) + 1e-6))


def masking_from_noise(noise: Tensor, num_keep: int) -> Masking:
    """Keeps the ``num_keep`` patches of smallest noise in every row (paper, section 3, "Simple
    implementation").

    Args:
        noise: (B, L), any real numbers; equal ones keep their raster order.
        num_keep: number of visible patches per image.
    """
    ids_shuffle = noise.argsort(dim=1, stable=True)
    ids_restore = invert_permutation(ids_shuffle)
    mask = (ids_restore >= num_keep).float()
    return Masking(ids_shuffle[:, :num_keep], ids_shuffle[:, num_keep:], ids_restore, mask)


def masking_from_mask(mask: Tensor, shape: tuple[int, int]) -> Masking:
    """Uses a given mask; visible patches then stand in raster order.

    Args:
        mask: (B, L), bool or 0/1 numbers, 1 = removed.
        shape: the (B, L) that the images ask for.

    Raises:
        ValueError: for another shape, other values, rows that remove different numbers, or a row
            that removes all.
    """
    if tuple(mask.shape) != shape:
        raise ValueError(
            f'mask has shape {tuple(mask.shape)}, but these images need {shape}, (images, '
            'patches), '
            'or a mask of pixels, (images, height, width)'
        )
    if not ((mask == 0) | (mask == 1)).all():
        raise ValueError(
            f'mask holds values other than 0 (visible) and 1 (removed), such as {mask.max().item()}'
        )
    removed = mask.sum(dim=1, dtype=torch.long)
    fewest, most = removed.min().item(), removed.max().item()
    if fewest != most:
        raise ValueError(
            f'mask removes between {fewest} and {most} patches per image; all images must lose '
            'the same number'
        )
    if most == shape[1]:
        raise ValueError(f'mask removes all {most} patches; at least one must stay visible')
    return masking_from_noise(mask.float(), shape[1] - most)


def block_noise(noise: Tensor, grid: tuple[int, int]) -> Tensor:
    """Arranges noise so that whole rectangles are removed one after another (BEiT, section 2.3,
    algorithm 1).

    Rectangles cover 8 to 40 % of the image at an aspect ratio of 0.3 to 1 / 0.3 and may overlap; of
    the last one as many patches are taken as are still wanted. Where sixteen do not cover enough,
    the rest is random.

    Args:
        noise: (B, L), uniform in [0, 1); nothing else is drawn.
        grid: (h, w) with h * w = L.

    Returns:
        (B, L) for :func:`masking_from_noise`.
    """
    h, w = grid
    blocks = min(16, noise.shape[1] // 4)
    if blocks == 0:
        return noise
    area, aspect, top, left = noise[:, : 4 * blocks].reshape(-1, 4, blocks, 1).unbind(1)
    area, aspect = h * w * (0.08 + 0.32 * area), (math.log(0.3) * (2 * aspect - 1)).exp()
    height, width = (
        (area * aspect).sqrt().round().clamp(1, h),
        (area / aspect).sqrt().round().clamp(1, w),
    )
    top, left = (top * (h - height + 1)).floor(), (left * (w - width + 1)).floor()
    rows, columns = torch.arange(h, device=noise.device), torch.arange(w, device=noise.device)
    in_rows, in_columns = (
        (rows >= top) & (rows < top + height),
        (columns >= left) & (columns < left + width),
    )
    covered = in_rows.unsqueeze(3) & in_columns.unsqueeze(2)
    number = torch.arange(blocks, device=noise.device).view(-1, 1, 1)
    first = torch.where(covered, number, blocks).amin(dim=1).flatten(1)
    return noise - first


def grid_noise(noise: Tensor, grid: tuple[int, int]) -> Tensor:
    """Arranges noise so that the visible patches are spread evenly: at 75 %, one of every 2 x 2
    (paper, table 1f).

    The order is that of an ordered dither (Bayer's matrix), shifted at random, so that every ratio
    has its pattern. Arguments and result as for :func:`block_noise`.
    """
    h, w = grid
    order = torch.zeros(1, 1, device=noise.device)
    while len(order) < max(grid):
        upper, lower = (
            torch.cat([4 * order, 4 * order + 2], dim=1),
            torch.cat([4 * order + 3, 4 * order + 1], dim=1),
        )
        order = torch.cat([upper, lower])
    down, right = (noise[:, :1] * len(order)).long(), (noise[:, -1:] * len(order)).long()
    rows = (torch.arange(h, device=noise.device) + down) % len(order)
    columns = (torch.arange(w, device=noise.device) + right) % len(order)
    return order[rows.unsqueeze(2), columns.unsqueeze(1)].flatten(1)


# How a mask of each kind is made of uniform noise; what is random is the noise alone.
MASK_KINDS = dict(random=lambda noise, grid: noise, block=block_noise, grid=grid_noise)


def mask_from_pixels(mask: Tensor, patch_size: tuple[int, int]) -> Tensor:
    """Turns a mask of pixels into one of patches: a patch is marked if any of its pixels is.

    Args:
        mask: (H, W) or (B, H, W), bool or numbers, of which 0 alone is unmarked.
        patch_size: (ph, pw).

    Returns:
        (B, L) bool, B = 1 for (H, W).

    Raises:
        ValueError: for another shape, or if the patches do not tile the mask.
    """
    if mask.ndim not in (2, 3):
        raise ValueError(f'a mask of pixels is (H, W) or (B, H, W), not {tuple(mask.shape)}')
    pixels = (mask if mask.ndim == 3 else mask.unsqueeze(0)).unsqueeze(1) != 0
    return patchify(pixels, patch_size).any(dim=-1)
