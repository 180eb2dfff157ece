"""The grid of patches that weights are for: noted beside a state dict, or inferred.

A number of patches alone does not determine the grid: 18 patches may be 3 x 6 or 6 x 3.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

from mmpretrain.models import VisionTransformer
from torch import Tensor, nn

from ..utils._compat.torch import get_metadata

Grid = tuple[int, int]
"""Rows and columns of patches."""


def source_grid(patches: int, stored: Grid | None = None, wanted: Grid | None = None) -> Grid:
    """Returns the rows and columns of patches that a position embedding is for.

    The first of these that has the right number of patches: the ``stored`` grid, the grid that is
    ``wanted``, a square, a grid with the aspect ratio of the one that is wanted.

    Args:
        patches: number of patches of the position embedding.
        stored: the grid that is noted with the weights.
        wanted: the grid of the model that loads the weights.

    Raises:
        ValueError: if none of them has that number.
    """
    for grid in (stored, wanted):
        if grid is not None and grid[0] * grid[1] == patches:
            return grid[0], grid[1]
    side = math.isqrt(patches)
    if side * side == patches:
        return side, side
    if wanted is None:
        raise ValueError(
            f'the weights are for {patches} patches, which is not a square number; name their '
            'grid=(ROWS, COLUMNS)'
        )
    h, w = wanted
    # rows / columns = h / w and rows * columns = patches.
    rows = math.isqrt(patches * h // w)
    if rows and rows * rows * w == patches * h and patches % rows == 0:
        return rows, patches // rows
    raise ValueError(
        f'the weights are for {patches} patches, which are neither a square nor of the aspect '
        f'ratio of this model, {h} x {w}, and their grid is not noted; resize them with '
        'tools/convert_checkpoint.py --src-grid ROWS COLUMNS --img-size HEIGHT WIDTH'
    )


def stored_grid(state_dict: Mapping[str, Tensor], prefix: str) -> Grid | None:
    """Returns the grid that :func:`note_grid` noted for the module under ``prefix``, or None."""
    notes = get_metadata(state_dict) or {}
    return noted_grid(notes.get(prefix[:-1], {}))


def note_grid(module: nn.Module, state_dict: dict, prefix: str, local_metadata: dict) -> None:
    """Notes the grid of patches beside a state dict; a post-hook of ``state_dict()``."""
    grid = module.patch_resolution if isinstance(module, VisionTransformer) else module.grid_size
    local_metadata['grid'] = tuple(grid)


def noted_grid(notes: Mapping) -> Grid | None:
    """Returns the grid in a module's notes; None if there is none, or no pair of sizes."""
    grid = notes.get('grid')
    if not isinstance(grid, tuple | list) or len(grid) != 2:
        return None
    rows, columns = grid
    is_valid = type(rows) is int and type(columns) is int and rows > 0 and columns > 0
    return (rows, columns) if is_valid else None
