"""Sine-cosine position embeddings. Imports torch alone."""

from __future__ import annotations

import torch
from torch import Tensor


def sincos_position_embedding(grid: tuple[int, int], dim: int) -> Tensor:
    """Returns the fixed 2-D sine-cosine embedding of the authors' code.

    The first half encodes the column (w), the second the row (h). Each half is
    ``[sin(p * f_0) ... sin(p * f_k), cos(p * f_0) ... cos(p * f_k)]`` with
    ``f_i = 10000 ** (-i / (dim / 4))``.

    Args:
        grid: rows and columns of patches, (h, w).
        dim: dimension of the tokens.

    Returns:
        (1, 1 + h * w, dim) float32; the first row, the cls token's, is zero.

    Raises:
        ValueError: if ``dim`` is not a multiple of 4.
    """
    if dim % 4:
        raise ValueError(
            f'a 2-D sine-cosine position embedding needs a dimension divisible by 4, not {dim}'
        )
    h, w = grid
    # In double precision, as in the authors' code.
    frequencies = 10000.0 ** (-torch.arange(dim // 4, dtype=torch.float64) / (dim // 4))
    rows, columns = torch.meshgrid(torch.arange(h), torch.arange(w), indexing='ij')
    parts = []
    for positions in (columns, rows):
        angles = positions.reshape(-1, 1) * frequencies  # (L, dim / 4)
        parts += [angles.sin(), angles.cos()]
    embedding = torch.zeros(1, 1 + h * w, dim)
    embedding[0, 1:] = torch.cat(parts, dim=1)  # (L, dim)
    return embedding
