"""Fits weights in mmpretrain's layout to another image size or number of channels."""

from __future__ import annotations

from mmengine.logging import print_log
from mmpretrain.models.utils import resize_pos_embed
from torch import Tensor

from ..models.adapt import spread_input, spread_prediction
from .architecture import sizes_of

_POSITIONS = ('backbone.pos_embed', 'neck.decoder_pos_embed')


def resize_positions(
    state_dict: dict[str, Tensor],
    img_size: tuple[int, int],
    source_grid: tuple[int, int] | None = None,
) -> dict[str, Tensor]:
    """Resizes the position embeddings of encoder and decoder, bicubically, for images of another
    size.

    Args:
        state_dict: the weights.
        img_size: height and width of the images to come, in pixels.
        source_grid: the grid (h, w) of patches that the weights are for; square if left out.

    Raises:
        ValueError: if patches do not tile such images, or the weights are for another grid.
    """
    sizes = sizes_of(state_dict, source_grid)
    grid = img_size[0] // sizes.patch_size[0], img_size[1] // sizes.patch_size[1]
    if 0 in grid or (grid[0] * sizes.patch_size[0], grid[1] * sizes.patch_size[1]) != tuple(
        img_size
    ):
        raise ValueError(
            f'patches of {sizes.patch_size} pixels do not tile an image of {tuple(img_size)} pixels'
        )
    if grid == sizes.grid:
        return state_dict
    resized = {
        key: resize_pos_embed(state_dict[key], sizes.grid, grid)
        for key in _POSITIONS
        if key in state_dict
    }
    print_log(f'Resized {" and ".join(resized)} from {sizes.grid} to {grid} patches.', 'current')
    return {**state_dict, **resized}


def change_channels(state_dict: dict[str, Tensor], channels: int) -> dict[str, Tensor]:
    """Fits the patch projection and the decoder's predictions to images of another number of
    channels.

    By the rule of :func:`spread_input` and :func:`spread_prediction`, as weights are when a model
    loads them.

    Raises:
        ValueError: for no channels.
    """
    if channels < 1:
        raise ValueError(f'images have 1 channel or more, not {channels}')
    projection = state_dict['backbone.patch_embed.projection.weight']
    before = projection.shape[1]
    if channels == before:
        return state_dict
    changed = {'backbone.patch_embed.projection.weight': spread_input(projection, channels)}
    for key in ('neck.decoder_pred.weight', 'neck.decoder_pred.bias'):
        if key in state_dict:
            changed[key] = spread_prediction(state_dict[key], before, channels)
    print_log(f'Changed {" and ".join(changed)} from {before} to {channels} channels.', 'current')
    return {**state_dict, **changed}
