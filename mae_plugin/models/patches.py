"""Patches of images as pure tensor functions. Imports torch alone.

B images of C channels and H x W pixels are cut into a grid of ``(h, w)`` patches of ``(ph, pw)``
pixels: L = h * w patches in raster order, each ``ph * pw * C`` numbers.
"""

from __future__ import annotations

import torch
from torch import Tensor


def to_pair(size: int | tuple[int, int]) -> tuple[int, int]:
    """``7 -> (7, 7)`` and ``(7, 5) -> (7, 5)``: a size as (height, width)."""
    if isinstance(size, int):
        return size, size
    height, width = size
    return int(height), int(width)


def invert_permutation(permutation: Tensor) -> Tensor:
    """The inverse of a permutation in every row (B, L), by one scatter where a second sort would
    cost far more.
    """
    positions = torch.arange(permutation.shape[1], device=permutation.device).expand_as(permutation)
    return torch.empty_like(permutation).scatter_(1, permutation, positions)


def take_tokens(tokens: Tensor, ids: Tensor) -> Tensor:
    """Picks tokens by index: (B, L, D) and (B, K) -> (B, K, D)."""
    return tokens.gather(1, ids.unsqueeze(-1).expand(-1, -1, tokens.shape[-1]))


def patch_grid(images: Tensor | tuple[int, int], patch_size: tuple[int, int]) -> tuple[int, int]:
    """The (h, w) grid of patches that images (B, C, H, W), or images of a size (H, W), are cut
    into.

    Raises:
        ValueError: if the patches do not tile the images.
    """
    (height, width), (ph, pw) = (
        images.shape[-2:] if isinstance(images, Tensor) else images,
        patch_size,
    )
    if height < ph or width < pw or height % ph or width % pw:
        near = [max(p, (size + p // 2) // p * p) for size, p in ((height, ph), (width, pw))]
        raise ValueError(
            f'images of {height} x {width} pixels cannot be cut into patches of {ph} x {pw}; '
            f'the nearest size that can is {near[0]} x {near[1]}'
        )
    return height // ph, width // pw


def patchify(images: Tensor, patch_size: tuple[int, int]) -> Tensor:
    """(B, C, H, W) -> (B, L, ph * pw * C): within a patch row by row, channels innermost."""
    h, w = patch_grid(images, patch_size)
    ph, pw = patch_size
    batch, channels = images.shape[:2]
    patches = images.reshape(batch, channels, h, ph, w, pw).permute(0, 2, 4, 3, 5, 1)
    return patches.reshape(batch, h * w, ph * pw * channels)


def unpatchify(patches: Tensor, patch_size: tuple[int, int], grid: tuple[int, int]) -> Tensor:
    """(B, L, ph * pw * C) -> (B, C, H, W), the inverse of :func:`patchify`."""
    (h, w), (ph, pw) = grid, patch_size
    batch, length, size = patches.shape
    if length != h * w or size % (ph * pw):
        raise ValueError(
            f'{length} patches of {size} numbers do not fill a grid of {h} x {w} patches of {ph} '
            f'x {pw} pixels'
        )
    channels = size // (ph * pw)
    images = patches.reshape(batch, h, w, ph, pw, channels).permute(0, 5, 1, 3, 2, 4)
    return images.reshape(batch, channels, h * ph, w * pw)


def patch_statistics(patches: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation of every patch, (B, L, 1) each, of the unbiased variance plus
    1e-6.
    """
    mean = patches.mean(dim=-1, keepdim=True)
    return mean, (patches.var(dim=-1, keepdim=True) + 1e-6).sqrt()


def fill_from_visible(
    values: Tensor, mask: Tensor, grid: tuple[int, int], sigma: float = 1.0
) -> Tensor:
    """Replaces the values of removed patches by a Gaussian-weighted mean over the visible ones.

    An estimate that looks at visible patches only, so it never leaks what the mask hides.

    Args:
        values: (B, L, K), any K numbers per patch; those of visible patches are returned as they
            are.
        mask: (B, L), 1 = removed.
        grid: (h, w) with h * w = L.
        sigma: standard deviation of the weights, in patches.
    """
    rows, columns = torch.meshgrid(torch.arange(grid[0]), torch.arange(grid[1]), indexing='ij')
    places = torch.stack([rows.flatten(), columns.flatten()], dim=1).to(values)
    distance2 = torch.cdist(places, places).square()
    logits = (-distance2 / (2 * sigma**2)).masked_fill(mask.bool().unsqueeze(1), -torch.inf)
    # A softmax of the log-weights is their normalised mean, and stays exact when every neighbour is
    # far away.
    return torch.where(mask.bool().unsqueeze(-1), logits.softmax(dim=-1) @ values, values)
