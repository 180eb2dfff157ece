"""Converts a checkpoint in any layout to a file or folder in another."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from mmengine.logging import print_log
from torch import Tensor

from ..models.adapt import ENCODER_KEYS, Wanted, adapt
from ..models.mae_decoder import DECODER_KEYS
from ..utils.atomic_files import staged
from .architecture import choose_num_heads, sizes_of
from .check_finite import check_finite
from .hugging_face import check_config, make_config, write_folder
from .layouts import Content, detect
from .loading import read_checkpoint
from .onnx_export import write_onnx
from .renaming import encoder_of, from_mmpretrain, to_mmpretrain
from .state_dicts import weights_of, with_grid, write_weights
from .stored_settings import grid_of, stored_settings


@dataclass
class Source:
    """Weights in mmpretrain's names, with the settings of the model that their checkpoint stores.

    Attributes:
        content: layout and kind of the weights as they were read.
        state_dict: the weights, ``backbone.`` first.
        settings: ``num_heads``, ``decoder_num_heads`` and ``norm_pix``, as far as they are stored.
        grid: rows and columns of patches that the weights are for; None for a square.
    """

    content: Content
    state_dict: dict[str, Tensor]
    settings: dict[str, int | bool]
    grid: tuple[int, int] | None = None


def read_source(path: str, grid: tuple[int, int] | None = None) -> Source:
    """Reads a file or a Hugging Face folder in any layout.

    Args:
        path: the file or folder.
        grid: rows and columns of patches that the weights are for; if None, those that are stored.

    Raises:
        FileNotFoundError: if there is none.
        ValueError: if it is damaged, unsafe or in no known layout, or holds weights that are NaN or
            infinite.
    """
    checkpoint = read_checkpoint(path)
    weights = weights_of(checkpoint)
    check_finite(weights, str(path))
    state_dict = to_mmpretrain(weights)
    # A bare state dict holds nothing else.
    if checkpoint is not weights:
        dropped = sorted(checkpoint.keys() - {'state_dict', 'model', 'config'})
        if dropped:
            print_log(f'Only the weights are converted, not {", ".join(dropped)}.', 'current')
    check_config(checkpoint.get('config'))
    content = detect(weights)
    assert content is not None, 'to_mmpretrain refuses weights of no layout'
    return Source(
        content=content,
        state_dict=state_dict,
        settings=stored_settings(checkpoint),
        grid=grid or grid_of(checkpoint, weights),
    )


def resize(
    source: Source, img_size: tuple[int, int] | None = None, in_channels: int | None = None
) -> None:
    """Adapts weights to another image size or number of channels, with a log line per tensor.

    Args:
        source: the weights, which are replaced.
        img_size: height and width of the new images in pixels; None leaves the grid of patches.
        in_channels: channels of the new images; None leaves the channels.

    Raises:
        ValueError: if patches do not tile images of ``img_size``, the weights are for another grid
            than that of ``source``, or ``in_channels`` is less than 1.
    """
    if img_size is None and in_channels is None:
        return
    if in_channels is not None and in_channels < 1:
        raise ValueError(f'images have 1 channel or more, not in_channels={in_channels}')
    sizes = sizes_of(source.state_dict, source.grid)
    grid = None
    if img_size is not None:
        (height, width), (ph, pw) = img_size, sizes.patch_size
        grid = height // ph, width // pw
        if 0 in grid or (grid[0] * ph, grid[1] * pw) != (height, width):
            raise ValueError(
                f'patches of {sizes.patch_size} pixels do not tile an image of {tuple(img_size)} '
                'pixels'
            )
        source.grid = grid
    # The keys of a missing decoder are skipped.
    wanted = [
        Wanted('backbone.', ENCODER_KEYS, sizes.patch_size, grid, in_channels),
        Wanted('neck.', DECODER_KEYS, sizes.patch_size, grid, in_channels),
    ]
    source.state_dict, report = adapt(source.state_dict, wanted, sizes.grid)
    report.log()


def write_target(
    source: Source,
    target: Path,
    layout: str,
    num_heads: int | None = None,
    decoder_num_heads: int | None = None,
    force: bool = False,
) -> dict[str, Tensor]:
    """Writes weights in a layout: a ``.pth`` or ``.safetensors`` file, or a Hugging Face folder.

    Args:
        source: the weights.
        target: the file or folder.
        layout: one of ``LAYOUTS``; ``'hf'`` with a target without suffix makes a folder.
        num_heads: the encoder's attention heads, if they are not stored.
        decoder_num_heads: the decoder's attention heads, if they are not stored.
        force: whether an existing target may be overwritten.

    Returns:
        The weights as written.

    Raises:
        ValueError: if ``target`` exists and ``force`` is not set, or the layout cannot hold such
            weights.
    """
    weights = from_mmpretrain(source.state_dict, layout)
    # Hugging Face's config.json holds the grid; the authors' and timm's files have no place for it.
    if layout == 'mmpretrain':
        weights = with_grid(weights, source.grid)
    with staged(target, force) as path:
        if layout == 'hf' and not target.suffix:
            sizes = sizes_of(source.state_dict, source.grid)
            config = make_config(sizes, source.settings, num_heads, decoder_num_heads)
            write_folder(weights, config, path)
        else:
            write_weights(weights, path, layout)
    return weights


def export_encoder(
    source: Source, target: Path, to: str, num_heads: int | None = None, force: bool = False
) -> float | None:
    """Writes the encoder alone, for mmpretrain, timm, Hugging Face or ONNX.

    mmpretrain's file has no prefix, so ``init_cfg=dict(type='Pretrained', checkpoint=...)`` of a
    backbone loads it.

    Args:
        source: the weights, of which the encoder is kept.
        target: the file or folder.
        to: ``'mmpretrain'``, ``'timm'``, ``'hf'`` or ``'onnx'``.
        num_heads: attention heads, if they are not stored.
        force: whether an existing target may be overwritten.

    Returns:
        For ONNX, the largest difference from PyTorch's outputs.

    Raises:
        ValueError: if ``target`` exists and ``force`` is not set, or ``to`` has no such encoder.
    """
    source.state_dict = encoder_of(source.state_dict)
    if to == 'onnx':
        sizes = sizes_of(source.state_dict, source.grid)
        heads = choose_num_heads(sizes.embed_dims, num_heads, source.settings.get('num_heads'))
        with staged(target, force) as path:
            return write_onnx(source.state_dict, sizes, heads, path)
    # write_target would keep the prefix, which a bare backbone has not.
    if to == 'mmpretrain':
        bare = {key.removeprefix('backbone.'): value for key, value in source.state_dict.items()}
        with staged(target, force) as path:
            write_weights(with_grid(bare, source.grid), path, to)
    else:
        write_target(source, target, to, num_heads, force=force)
    return None
