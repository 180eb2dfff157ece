"""Patches of images as pure tensor functions. Imports torch alone.

B images of C channels and H x W pixels are cut into a grid of ``(h, w)`` patches of ``(ph, pw)``
pixels: L = h * w patches in raster order, each of ``ph * pw * C`` numbers.
"""

from __future__ import annotations

import torch
from torch import Tensor


def to_pair(size: int | tuple[int, int]) -> tuple[int, int]:
    """Returns a size as (height, width): ``7 -> (7, 7)`` and ``(7, 5) -> (7, 5)``."""
    if isinstance(size, int):
        return size, size
    height, width = size
    return int(height), int(width)


def invert_permutation(permutation: Tensor) -> Tensor:
    """Returns the inverse of the permutation in every row, (B, L)."""
    # One scatter, where a second argsort would cost far more.
    positions = torch.arange(permutation.shape[1], device=permutation.device).expand_as(permutation)
    return torch.empty_like(permutation).scatter_(1, permutation, positions)


def take_tokens(tokens: Tensor, ids: Tensor) -> Tensor:
    """Selects tokens by index: (B, L, D) and (B, K) -> (B, K, D)."""
    return tokens.gather(1, ids.unsqueeze(-1).expand(-1, -1, tokens.shape[-1]))


def patch_grid(images: Tensor | tuple[int, int], patch_size: tuple[int, int]) -> tuple[int, int]:
    """Returns the grid (h, w) of patches into which images are cut.

    Args:
        images: (B, C, H, W), or the size (H, W).
        patch_size: (ph, pw).

    Raises:
        ValueError: if the patches do not tile the images.
    """
    height, width = images.shape[-2:] if isinstance(images, Tensor) else images
    ph, pw = patch_size
    if height < ph or width < pw or height % ph or width % pw:
        # Rounded to the nearest multiple, and at least one patch.
        near_height = max(ph, (height + ph // 2) // ph * ph)
        near_width = max(pw, (width + pw // 2) // pw * pw)
        raise ValueError(
            f'images of {height} x {width} pixels cannot be cut into patches of {ph} x {pw}; '
            f'the nearest size that can is {near_height} x {near_width}'
        )
    return height // ph, width // pw


def patchify(images: Tensor, patch_size: tuple[int, int]) -> Tensor:
    """Cuts images into patches: (B, C, H, W) -> (B, L, ph * pw * C).

    Within a patch, pixels are in raster order with the channels innermost.
    """
    h, w = patch_grid(images, patch_size)
    ph, pw = patch_size
    batch, channels = images.shape[:2]
    patches = images.reshape(batch, channels, h, ph, w, pw)
    patches = patches.permute(0, 2, 4, 3, 5, 1)  # (B, h, w, ph, pw, C)
    return patches.reshape(batch, h * w, ph * pw * channels)


def unpatchify(patches: Tensor, patch_size: tuple[int, int], grid: tuple[int, int]) -> Tensor:
    """Assembles images from patches: (B, L, ph * pw * C) -> (B, C, H, W).

    The inverse of :func:`patchify`.
    """
    (h, w), (ph, pw) = grid, patch_size
    batch, length, size = patches.shape
    if length != h * w or size % (ph * pw):
        raise ValueError(
            f'{length} patches of {size} numbers do not fill a grid of {h} x {w} patches of {ph} '
            f'x {pw} pixels'
        )
    channels = size // (ph * pw)
    images = patches.reshape(batch, h, w, ph, pw, channels)
    images = images.permute(0, 5, 1, 3, 2, 4)  # (B, C, h, ph, w, pw)
    return images.reshape(batch, channels, h * ph, w * pw)


def patch_statistics(patches: Tensor) -> tuple[Tensor, Tensor]:
    """Returns mean and standard deviation of every patch: (B, L, K) -> two of (B, L, 1).

    As in the authors' code, the variance is unbiased and 1e-6 is added to it.
    """
    mean = patches.mean(dim=-1, keepdim=True)
    std = (patches.var(dim=-1, keepdim=True) + 1e-6).sqrt()
    return mean, std


def fill_from_visible(
    values: Tensor, mask: Tensor, grid: tuple[int, int], sigma: float = 1.0
) -> Tensor:
    """Replaces the values of removed patches by a Gaussian-weighted mean over the visible ones.

    The estimate depends on visible patches alone, so no removed pixel leaks into it.

    Args:
        values: (B, L, K), any K numbers per patch; those of visible patches are returned unchanged.
        mask: (B, L), 1 = removed.
        grid: (h, w) with h * w = L.
        sigma: standard deviation of the weights, in patches.

    Returns:
        (B, L, K).
    """
    rows, columns = torch.meshgrid(torch.arange(grid[0]), torch.arange(grid[1]), indexing='ij')
    places = torch.stack([rows.flatten(), columns.flatten()], dim=1).to(values)  # (L, 2)
    squared_distance = torch.cdist(places, places).square()  # (L, L)
    logits = -squared_distance / (2 * sigma**2)
    removed = mask.bool()
    logits = logits.masked_fill(removed.unsqueeze(1), -torch.inf)  # (B, L, L)
    # A softmax of the logarithms of the weights normalizes them, and stays exact where every
    # visible patch is so far away that its weight is 0 in floating point.
    estimates = logits.softmax(dim=-1) @ values  # (B, L, K)
    return torch.where(removed.unsqueeze(-1), estimates, values)
