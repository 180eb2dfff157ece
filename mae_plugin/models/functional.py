"""The mathematics of masked autoencoding as pure tensor functions; this file imports torch alone.

Shapes are named throughout: B images of C channels and H x W pixels, cut into a grid of ``(h, w)``
patches of ``(ph, pw)`` pixels, L = h * w patches in raster order, each ``ph * pw * C`` numbers.
A *mask* is (B, L) with 1 = removed and 0 = visible.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor


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


def pair(size: int | tuple[int, int]) -> tuple[int, int]:
    """``7 -> (7, 7)`` and ``(7, 5) -> (7, 5)``: a size as (height, width)."""
    if isinstance(size, int):
        return size, size
    height, width = size
    return int(height), int(width)


def check_mask_ratio(mask_ratio: float) -> float:
    """Returns ``mask_ratio`` if it lies in [0, 1), else raises ValueError."""
    if not 0 <= mask_ratio < 1:
        raise ValueError(
            f'mask_ratio={mask_ratio} is out of range: it is the share of patches to remove, at least 0 and less than 1'
        )
    return mask_ratio


def num_visible(num_patches: int, mask_ratio: float) -> int:
    """How many of ``num_patches`` stay visible: at least one, and none lost to rounding (100 at 0.9 keep 10)."""
    return max(1, int(num_patches * (1 - check_mask_ratio(mask_ratio)) + 1e-6))


def masking_from_noise(noise: Tensor, num_keep: int) -> Masking:
    """Keeps the ``num_keep`` patches of smallest noise in every row (paper, section 3, "Simple implementation").

    Args:
        noise: (B, L), any real numbers; equal ones keep their raster order.
        num_keep: number of visible patches per image.
    """
    ids_shuffle = noise.argsort(dim=1, stable=True)
    ids_restore = invert(ids_shuffle)
    mask = (ids_restore >= num_keep).float()
    return Masking(ids_shuffle[:, :num_keep], ids_shuffle[:, num_keep:], ids_restore, mask)


def invert(permutation: Tensor) -> Tensor:
    """The inverse of a permutation in every row (B, L), by one scatter where a second sort would cost far more."""
    positions = torch.arange(permutation.shape[1], device=permutation.device).expand_as(permutation)
    return torch.empty_like(permutation).scatter_(1, permutation, positions)


def masking_from_mask(mask: Tensor, shape: tuple[int, int]) -> Masking:
    """Uses a given mask; visible patches then stand in raster order.

    Args:
        mask: (B, L), bool or 0/1 numbers, 1 = removed.
        shape: the (B, L) that the images ask for.

    Raises:
        ValueError: for another shape, other values, rows that remove different numbers, or a row that removes all.
    """
    if tuple(mask.shape) != shape:
        raise ValueError(
            f'mask has shape {tuple(mask.shape)}, but these images need {shape}, (images, patches), '
            'or a mask of pixels, (images, height, width)'
        )
    if not ((mask == 0) | (mask == 1)).all():
        raise ValueError(f'mask holds values other than 0 (visible) and 1 (removed), such as {mask.max().item()}')
    removed = mask.sum(dim=1, dtype=torch.long)
    fewest, most = removed.min().item(), removed.max().item()
    if fewest != most:
        raise ValueError(
            f'mask removes between {fewest} and {most} patches per image; all images must lose the same number'
        )
    if most == shape[1]:
        raise ValueError(f'mask removes all {most} patches; at least one must stay visible')
    return masking_from_noise(mask.float(), shape[1] - most)


def block_noise(noise: Tensor, grid: tuple[int, int]) -> Tensor:
    """Arranges noise so that whole rectangles are removed one after another (BEiT, section 2.3, algorithm 1).

    Rectangles cover 8 to 40 % of the image at an aspect ratio of 0.3 to 1 / 0.3 and may overlap; of the last one as
    many patches are taken as are still wanted. Where sixteen do not cover enough, the rest is random.

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
    height, width = (area * aspect).sqrt().round().clamp(1, h), (area / aspect).sqrt().round().clamp(1, w)
    top, left = (top * (h - height + 1)).floor(), (left * (w - width + 1)).floor()
    rows, columns = torch.arange(h, device=noise.device), torch.arange(w, device=noise.device)
    in_rows, in_columns = (rows >= top) & (rows < top + height), (columns >= left) & (columns < left + width)
    covered = in_rows.unsqueeze(3) & in_columns.unsqueeze(2)
    number = torch.arange(blocks, device=noise.device).view(-1, 1, 1)
    first = torch.where(covered, number, blocks).amin(dim=1).flatten(1)
    return noise - first


def grid_noise(noise: Tensor, grid: tuple[int, int]) -> Tensor:
    """Arranges noise so that the visible patches are spread evenly: at 75 %, one of every 2 x 2 (paper, table 1f).

    The order is that of an ordered dither (Bayer's matrix), shifted at random, so that every ratio has its pattern.
    Arguments and result as for :func:`block_noise`.
    """
    h, w = grid
    order = torch.zeros(1, 1, device=noise.device)
    while len(order) < max(grid):
        upper, lower = torch.cat([4 * order, 4 * order + 2], dim=1), torch.cat([4 * order + 3, 4 * order + 1], dim=1)
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


def take(tokens: Tensor, ids: Tensor) -> Tensor:
    """Picks tokens by index: (B, L, D) and (B, K) -> (B, K, D)."""
    return tokens.gather(1, ids.unsqueeze(-1).expand(-1, -1, tokens.shape[-1]))


def sincos_position_embedding(grid: tuple[int, int], dim: int) -> Tensor:
    """Fixed 2-D sine-cosine embedding with the official order of halves: column (w) first, then row (h).

    Each half is ``[sin(p * f_0) ... sin(p * f_k), cos(p * f_0) ... cos(p * f_k)]`` with
    ``f_i = 10000 ** (-i / (dim / 4))``, computed in double precision as the authors' code does.

    Returns:
        (1, 1 + h * w, dim) float32; the first row, the cls token's, is zero.

    Raises:
        ValueError: if ``dim`` is not a multiple of 4.
    """
    if dim % 4:
        raise ValueError(f'a 2-D sine-cosine position embedding needs a dimension divisible by 4, not {dim}')
    h, w = grid
    frequencies = 10000.0 ** (-torch.arange(dim // 4, dtype=torch.float64) / (dim // 4))
    rows, columns = torch.meshgrid(torch.arange(h), torch.arange(w), indexing='ij')
    halves = []
    for positions in (columns, rows):
        angles = positions.reshape(-1, 1) * frequencies
        halves += [angles.sin(), angles.cos()]
    embedding = torch.zeros(1, 1 + h * w, dim)
    embedding[0, 1:] = torch.cat(halves, dim=1)
    return embedding


def patch_grid(images: Tensor | tuple[int, int], patch_size: tuple[int, int]) -> tuple[int, int]:
    """The (h, w) grid of patches that images (B, C, H, W), or images of a size (H, W), are cut into.

    Raises:
        ValueError: if the patches do not tile the images.
    """
    (height, width), (ph, pw) = images.shape[-2:] if isinstance(images, Tensor) else images, patch_size
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
            f'{length} patches of {size} numbers do not fill a grid of {h} x {w} patches of {ph} x {pw} pixels'
        )
    channels = size // (ph * pw)
    images = patches.reshape(batch, h, w, ph, pw, channels).permute(0, 5, 1, 3, 2, 4)
    return images.reshape(batch, channels, h * ph, w * pw)


def patch_statistics(patches: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation of every patch, (B, L, 1) each, of the unbiased variance plus 1e-6."""
    mean = patches.mean(dim=-1, keepdim=True)
    return mean, (patches.var(dim=-1, keepdim=True) + 1e-6).sqrt()


def fill_from_visible(values: Tensor, mask: Tensor, grid: tuple[int, int], sigma: float = 1.0) -> Tensor:
    """Replaces the values of removed patches by a Gaussian-weighted mean over the visible ones.

    An estimate that looks at visible patches only, so it never leaks what the mask hides.

    Args:
        values: (B, L, K), any K numbers per patch; those of visible patches are returned as they are.
        mask: (B, L), 1 = removed.
        grid: (h, w) with h * w = L.
        sigma: standard deviation of the weights, in patches.
    """
    rows, columns = torch.meshgrid(torch.arange(grid[0]), torch.arange(grid[1]), indexing='ij')
    places = torch.stack([rows.flatten(), columns.flatten()], dim=1).to(values)
    distance2 = torch.cdist(places, places).square()
    logits = (-distance2 / (2 * sigma**2)).masked_fill(mask.bool().unsqueeze(1), -torch.inf)
    # A softmax of the log-weights is their normalised mean, and stays exact when every neighbour is far away.
    return torch.where(mask.bool().unsqueeze(-1), logits.softmax(dim=-1) @ values, values)
