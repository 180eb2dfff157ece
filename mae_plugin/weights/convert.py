"""From a checkpoint in any layout to a file or folder in another: what the conversion and export
tools call.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from pathlib import Path

from mmengine.logging import print_log
from torch import Tensor

from ..utils._compat.torch import set_metadata
from ..utils.atomic_files import staged
from .architecture import grid_of, heads_of, heed_config, sizes_of, stored_settings
from .check_finite import check_finite
from .file_formats import weights_of, write_hf_folder, write_weights
from .layouts import Content, detect, encoder_of, from_mmpretrain, to_mmpretrain
from .loading import read_checkpoint
from .onnx_export import write_onnx
from .resize import change_channels, resize_positions


@dataclass
class Source:
    """Weights in mmpretrain's names, with where they came from.

    Attributes:
        content: layout and kind of what was read.
        state_dict: the weights, ``backbone.`` first.
        settings: number of heads and the like, as far as the checkpoint says them.
        grid: rows and columns of patches that the weights are for; None for a square.
    """

    content: Content
    state_dict: dict[str, Tensor]
    settings: dict[str, int | bool]
    grid: tuple[int, int] | None = None


def read_source(path: str, grid: tuple[int, int] | None = None) -> Source:
    """Reads a file or a Hugging Face folder in any layout.

    Raises:
        FileNotFoundError: if there is none.
        ValueError: if it is damaged, unsafe or in no layout that is known, or holds weights that
            are not finite.
    """
    checkpoint = read_checkpoint(path)
    weights = weights_of(checkpoint)
    check_finite(weights, str(path))
    state_dict = to_mmpretrain(weights)
    if checkpoint is not weights and (
        rest := sorted(checkpoint.keys() - {'state_dict', 'model', 'config'})
    ):
        print_log(f'Only the weights are carried over, not {", ".join(rest)}.', 'current')
    heed_config(checkpoint)
    return Source(
        detect(weights),
        state_dict,
        stored_settings(checkpoint),
        grid or grid_of(checkpoint, weights),
    )


def fit(
    source: Source, img_size: tuple[int, int] | None = None, in_channels: int | None = None
) -> None:
    """Changes weights in place of the old ones, for another image size or number of channels."""
    if img_size is not None:
        source.state_dict = resize_positions(source.state_dict, img_size, source.grid)
        height, width = source.state_dict['backbone.patch_embed.projection.weight'].shape[2:]
        source.grid = img_size[0] // height, img_size[1] // width
    if in_channels is not None:
        source.state_dict = change_channels(source.state_dict, in_channels)


def write_target(
    source: Source,
    target: Path,
    layout: str,
    num_heads: int | None = None,
    decoder_num_heads: int | None = None,
    force: bool = False,
) -> dict[str, Tensor]:
    """Writes weights in a layout: a ``.pth`` or ``.safetensors`` file, or a folder for Hugging
    Face's models.

    Returns:
        The weights as written.

    Raises:
        ValueError: if ``target`` is there already, or the layout cannot hold such weights.
    """
    weights = from_mmpretrain(source.state_dict, layout)
    if layout == 'mmpretrain':
        weights = _with_grid(weights, source.grid)
    with staged(target, force) as path:
        if layout == 'hf' and not target.suffix:
            write_hf_folder(weights, _hf_config(source, num_heads, decoder_num_heads), path)
        else:
            write_weights(weights, path, layout)
    return weights


def export_encoder(
    source: Source, target: Path, to: str, num_heads: int | None = None, force: bool = False
) -> float | None:
    """Writes the encoder alone, for mmpretrain, timm, Hugging Face or ONNX.

    mmpretrain's file has no prefix: ``init_cfg=dict(type='Pretrained', checkpoint=...)`` of a
    backbone loads it.

    Returns:
        For ONNX, the largest difference from PyTorch's outputs.

    Raises:
        ValueError: if ``target`` is there already, or such an encoder cannot be written so.
    """
    source.state_dict = encoder_of(source.state_dict)
    if to == 'onnx':
        sizes = sizes_of(source.state_dict, source.grid)
        heads = heads_of(sizes.embed_dims, num_heads, source.settings.get('num_heads'))
        with staged(target, force) as path:
            return write_onnx(source.state_dict, sizes, heads, path)
    if to == 'mmpretrain':
        with staged(target, force) as path:
            bare = {
                key.removeprefix('backbone.'): tensor for key, tensor in source.state_dict.items()
            }
            write_weights(_with_grid(bare, source.grid), path, to)
    else:
        write_target(source, target, to, num_heads, force=force)
    return None


def _with_grid(
    weights: dict[str, Tensor], grid: tuple[int, int] | None
) -> OrderedDict[str, Tensor]:
    """Notes the grid of patches where a model's own ``state_dict()`` does (see
    :func:`remember_grid`).
    """
    noted = OrderedDict(weights)
    if grid is not None:
        notes = dict(version=1, grid=tuple(grid))
        set_metadata(noted, OrderedDict((name, notes) for name in ('', 'backbone', 'neck')))
    return noted


def _hf_config(source: Source, num_heads: int | None, decoder_num_heads: int | None) -> dict:
    """What ``config.json`` says of weights in mmpretrain's layout."""
    sizes = sizes_of(source.state_dict, source.grid)
    (height, width), (patch, patch_width) = sizes.img_size, sizes.patch_size
    if patch != patch_width or (sizes.decoder_dims and height != width):
        raise ValueError(
            "Hugging Face's models take square patches, and ViTMAE square images, not "
            f'{sizes.img_size}'
        )
    config = dict(
        architectures=['ViTModel'],
        model_type='vit',
        hidden_size=sizes.embed_dims,
        num_hidden_layers=sizes.num_layers,
        num_attention_heads=heads_of(sizes.embed_dims, num_heads, source.settings.get('num_heads')),
        intermediate_size=sizes.feedforward_channels,
        hidden_act='gelu',
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
        layer_norm_eps=1e-6,
        image_size=height if height == width else [height, width],
        patch_size=patch,
        num_channels=sizes.in_channels,
        qkv_bias=True,
    )
    if sizes.num_classes:
        labels = [f'LABEL_{i}' for i in range(sizes.num_classes)]
        config.update(
            architectures=['ViTForImageClassification'],
            id2label=dict(enumerate(labels)),
            label2id={label: i for i, label in enumerate(labels)},
        )
    if sizes.decoder_dims:
        stored = source.settings.get('decoder_num_heads')
        config.update(
            architectures=['ViTMAEForPreTraining'],
            model_type='vit_mae',
            decoder_hidden_size=sizes.decoder_dims,
            decoder_num_hidden_layers=sizes.decoder_layers,
            decoder_num_attention_heads=heads_of(
                sizes.decoder_dims, decoder_num_heads, stored, decoder=True
            ),
            decoder_intermediate_size=sizes.decoder_feedforward,
            mask_ratio=0.75,
            norm_pix_loss=source.settings.get('norm_pix', False),
        )
    return config
