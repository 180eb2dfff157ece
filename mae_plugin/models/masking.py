"""Masks of patches: drawn from noise, given by the user, or read from pixels. Imports torch alone.

A *mask* is (B, L) with 1 = removed and 0 = visible, for L patches in raster order.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from .patches import invert_permutation, patchify


class Masking(NamedTuple):
    """The visible and the removed patches of a batch, as indices and as a mask.

    Attributes:
        ids_keep: (B, L_visible), indices of the visible patches in the encoder's order.
        ids_removed: (B, L - L_visible), indices of the removed patches.
        ids_restore: (B, L), position of every patch in the shuffled order, visible patches first.
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
    """Returns the number of patches that stay visible, at least one."""
    visible = num_patches * (1 - check_mask_ratio(mask_ratio))
    # 100 * (1 - 0.9) is 9.999999999999998 in floating point, and has to give 10.
    return max(1, int(visible + 1e-6))


def masking_from_noise(noise: Tensor, num_keep: int) -> Masking:
    """Keeps the ``num_keep`` patches of smallest noise in every row.

    One sort gives a random subset of the same size for each image (paper, section 3, "Simple
    implementation").

    Args:
        noise: (B, L), any real numbers; equal ones keep their raster order.
        num_keep: number of visible patches per image.
    """
    ids_shuffle = noise.argsort(dim=1, stable=True)  # (B, L)
    ids_restore = invert_permutation(ids_shuffle)  # (B, L)
    mask = (ids_restore >= num_keep).float()
    return Masking(ids_shuffle[:, :num_keep], ids_shuffle[:, num_keep:], ids_restore, mask)


def masking_from_mask(mask: Tensor, shape: tuple[int, int]) -> Masking:
    """Uses a given mask; the visible patches are then in raster order.

    Args:
        mask: (B, L), bool or 0/1 numbers, 1 = removed.
        shape: the (B, L) of the images.

    Raises:
        ValueError: for another shape, other values, rows that remove different numbers of patches,
            or a row that removes all of them.
    """
    if tuple(mask.shape) != shape:
        raise ValueError(
            f'mask has shape {tuple(mask.shape)}, but these images need {shape}, (images, '
            'patches), or a mask of pixels, (images, height, width)'
        )
    if not ((mask == 0) | (mask == 1)).all():
        raise ValueError(
            f'mask holds values other than 0 (visible) and 1 (removed), such as {mask.max().item()}'
        )
    removed = mask.sum(dim=1, dtype=torch.long)  # (B,)
    fewest, most = removed.min().item(), removed.max().item()
    # The visible patches of a batch form one tensor, so their number has to be the same.
    if fewest != most:
        raise ValueError(
            f'mask removes between {fewest} and {most} patches per image; all images must lose '
            'the same number'
        )
    if most == shape[1]:
        raise ValueError(f'mask removes all {most} patches; at least one must stay visible')
    # The stable sort puts the zeros first and keeps the raster order among them.
    return masking_from_noise(mask.float(), shape[1] - most)


def block_noise(noise: Tensor, grid: tuple[int, int]) -> Tensor:
    """Arranges noise so that whole rectangles are removed (BEiT, section 2.3, algorithm 1).

    Rectangles cover 8 to 40 % of the image with an aspect ratio of 0.3 to 1 / 0.3, and may overlap.
    They are removed one after another; of the last one, only as many patches as are still missing.
    If sixteen rectangles do not cover enough, the rest is random.

    Args:
        noise: (B, L), uniform in [0, 1), the only source of randomness.
        grid: (h, w) with h * w = L.

    Returns:
        (B, L) for :func:`masking_from_noise`.
    """
    h, w = grid
    blocks = min(16, noise.shape[1] // 4)
    if blocks == 0:
        return noise
    # Four random numbers describe a block. (B, 4 * blocks) -> four of (B, blocks, 1)
    area, aspect, top, left = noise[:, : 4 * blocks].reshape(-1, 4, blocks, 1).unbind(1)
    area = h * w * (0.08 + 0.32 * area)
    aspect = (math.log(0.3) * (2 * aspect - 1)).exp()  # log-uniform in [0.3, 1 / 0.3]
    height = (area * aspect).sqrt().round().clamp(1, h)
    width = (area / aspect).sqrt().round().clamp(1, w)
    top = (top * (h - height + 1)).floor()
    left = (left * (w - width + 1)).floor()

    rows = torch.arange(h, device=noise.device)  # (h,)
    columns = torch.arange(w, device=noise.device)  # (w,)
    in_rows = (rows >= top) & (rows < top + height)  # (B, blocks, h)
    in_columns = (columns >= left) & (columns < left + width)  # (B, blocks, w)
    covered = in_rows.unsqueeze(3) & in_columns.unsqueeze(2)  # (B, blocks, h, w)

    # The number of the first block that covers a patch; `blocks` where there is none.
    number = torch.arange(blocks, device=noise.device).view(-1, 1, 1)
    first = torch.where(covered, number, blocks).amin(dim=1).flatten(1)  # (B, L)
    # The patches of the first block get the largest values, and so are removed first. The noise
    # decides among patches of one block.
    return noise - first


def grid_noise(noise: Tensor, grid: tuple[int, int]) -> Tensor:
    """Arranges noise so that the visible patches are spread evenly (paper, table 1f).

    At 75 %, one patch of every 2 x 2 stays visible. The order is that of an ordered dither (Bayer's
    matrix) with a random shift, so every ratio has its own even pattern. Arguments and result as
    for :func:`block_noise`.
    """
    h, w = grid
    # Bayer's matrix of size 2n from that of size n: (1, 1), (2, 2), (4, 4), ...
    order = torch.zeros(1, 1, device=noise.device)
    while len(order) < max(grid):
        upper = torch.cat([4 * order, 4 * order + 2], dim=1)
        lower = torch.cat([4 * order + 3, 4 * order + 1], dim=1)
        order = torch.cat([upper, lower])
    size = len(order)
    down = (noise[:, :1] * size).long()  # (B, 1)
    right = (noise[:, -1:] * size).long()  # (B, 1)
    rows = (torch.arange(h, device=noise.device) + down) % size  # (B, h)
    columns = (torch.arange(w, device=noise.device) + right) % size  # (B, w)
    return order[rows.unsqueeze(2), columns.unsqueeze(1)].flatten(1)  # (B, h, w) -> (B, L)


def random_noise(noise: Tensor, grid: tuple[int, int]) -> Tensor:
    """Returns the noise unchanged: every set of patches is equally likely."""
    return noise


MASK_KINDS = dict(random=random_noise, block=block_noise, grid=grid_noise)
"""By kind of mask, the function that arranges uniform noise (B, L) on a grid (h, w)."""


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
    images = mask.unsqueeze(0) if mask.ndim == 2 else mask  # (B, H, W)
    pixels = images.unsqueeze(1) != 0  # (B, 1, H, W)
    return patchify(pixels, patch_size).any(dim=-1)  # (B, L, ph * pw) -> (B, L)
