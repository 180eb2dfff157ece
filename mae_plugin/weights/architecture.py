"""What the weights say of the model they are for, and the few things that only its config says."""

from __future__ import annotations

import argparse
import ast
import math
from dataclasses import dataclass

from mmengine.logging import print_log
from mmpretrain.models import VisionTransformer
from torch import Tensor

from ..models.adapt import stored_grid

# Widths of the released models; the weights are the same whatever number of heads they are split
# into.
_HEADS = {192: 3, 384: 6, 768: 12, 1024: 16, 1280: 16}
_DECODER_HEADS = {512: 16}


@dataclass(frozen=True)
class Sizes:
    """Sizes of the model that some weights are for; the decoder's and the classifier's are 0
    without one.
    """

    embed_dims: int
    num_layers: int
    feedforward_channels: int
    patch_size: tuple[int, int]
    in_channels: int
    grid: tuple[int, int]
    num_classes: int
    decoder_dims: int
    decoder_layers: int
    decoder_feedforward: int

    @property
    def img_size(self) -> tuple[int, int]:
        """Height and width of the usual image in pixels."""
        return self.grid[0] * self.patch_size[0], self.grid[1] * self.patch_size[1]


def sizes_of(state_dict: dict[str, Tensor], grid: tuple[int, int] | None = None) -> Sizes:
    """Reads the sizes from weights in mmpretrain's layout; the ``grid`` (h, w) of patches is square
    if left out.

    Raises:
        ValueError: if the number of patches is not a square and no ``grid`` is given, or is not
            that of ``grid``.
    """
    patches = state_dict['backbone.pos_embed'].shape[1] - 1
    side = math.isqrt(patches)
    if grid is None and side * side != patches:
        raise ValueError(
            f'the weights are for {patches} patches, not a square number; say --src-grid H W'
        )
    if grid is not None and grid[0] * grid[1] != patches:
        raise ValueError(
            f'the weights are for {patches} patches, which are no grid of {grid[0]} x {grid[1]}'
        )

    def rows(key: str) -> int:
        return len(state_dict.get(key, ()))

    def layers(prefix: str) -> int:
        return sum(key.startswith(prefix) and key.endswith('ln1.bias') for key in state_dict)

    dims, channels, *patch_size = state_dict['backbone.patch_embed.projection.weight'].shape
    return Sizes(
        embed_dims=dims,
        num_layers=layers('backbone.layers.'),
        feedforward_channels=rows('backbone.layers.0.ffn.layers.0.0.bias'),
        patch_size=tuple(patch_size),
        in_channels=channels,
        grid=grid or (side, side),
        num_classes=rows('head.fc.bias') or rows('head.layers.head.bias'),
        decoder_dims=rows('neck.decoder_embed.bias'),
        decoder_layers=layers('neck.decoder_blocks.'),
        decoder_feedforward=rows('neck.decoder_blocks.0.ffn.layers.0.0.bias'),
    )


def grid_of(checkpoint: dict, weights: dict[str, Tensor]) -> tuple[int, int] | None:
    """The rows and columns of patches that a checkpoint says its weights are for; None if it does
    not say.

    Raises:
        ValueError: if a Hugging Face config gives sizes that are none.
    """
    config = _hf_config_of(checkpoint)
    size, patch = (_positive_pair(config, name) for name in ('image_size', 'patch_size'))
    # One number for the image says nothing that a square number of patches does not.
    if isinstance(config.get('image_size'), list) and patch:
        return size[0] // patch[0], size[1] // patch[1]
    return stored_grid(weights, 'backbone.') or stored_grid(weights, '.')


def heed_config(checkpoint: dict) -> None:
    """Says what a Hugging Face config asks for and weights do not carry.

    Raises:
        ValueError: for an activation that no model of the other layouts has, or an epsilon that is
            not a number.
    """
    config = _hf_config_of(checkpoint)
    if (activation := config.get('hidden_act', 'gelu')) != 'gelu':
        raise ValueError(
            f'the config says hidden_act={_short(activation)}, but models elsewhere compute gelu'
        )
    eps = config.get('layer_norm_eps', 1e-6)
    if type(eps) not in (int, float) or not 0 <= eps < 1:
        raise ValueError(
            f'the config says layer_norm_eps={_short(eps)}, which is not a small number'
        )
    if eps != 1e-6:
        print_log(
            f'The config says layer_norm_eps={eps}, which weights do not carry; elsewhere it is '
            '1e-6.',
            'current',
        )


def _hf_config_of(checkpoint: dict) -> dict:
    config = checkpoint.get('config')
    return config if isinstance(config, dict) else {}


def _positive_pair(config: dict, name: str) -> tuple[int, int] | None:
    """A height and a width, given as two integers or one for both; None if they are not given."""
    value = config.get(name)
    pair = value if isinstance(value, list) else [value, value]
    if value is not None and not (len(pair) == 2 and all(type(n) is int and n > 0 for n in pair)):
        raise ValueError(
            f'the config says {name}={_short(value)}, which is not a positive integer, nor two of '
            'them'
        )
    return None if value is None else tuple(pair)


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 40 else f'{text[:40]}…'


def stored_settings(checkpoint: dict) -> dict[str, int | bool]:
    """Settings that weights do not show, as far as a checkpoint says them.

    Looks into the config that a Runner stores, a Hugging Face ``config.json`` and the authors'
    arguments, without running anything that is in them.

    Returns:
        Any of ``num_heads``, ``decoder_num_heads`` and ``norm_pix``.

    Raises:
        ValueError: for a number of heads that is not a positive integer, or a ``norm_pix`` that is
            not a bool.
    """
    config = _hf_config_of(checkpoint)
    names = dict(
        num_heads='num_attention_heads',
        decoder_num_heads='decoder_num_attention_heads',
        norm_pix='norm_pix_loss',
    )
    found = {ours: config.get(theirs) for ours, theirs in names.items()}
    arguments = checkpoint.get('args')
    # The authors' code stores a Namespace, which is read as a dict unless the file is trusted.
    if isinstance(arguments, argparse.Namespace):
        arguments = vars(arguments)
    if isinstance(arguments, dict):
        found['norm_pix'] = arguments.get('norm_pix_loss')
    meta = checkpoint.get('meta')
    text = meta.get('cfg') if isinstance(meta, dict) else None
    for name, value in _keywords(text if isinstance(text, str) else ''):
        if name in found:
            found[name] = value
        elif name == 'arch' and isinstance(value, str):
            found['num_heads'] = VisionTransformer.arch_zoo.get(value, {}).get('num_heads')
    found = {name: value for name, value in found.items() if value is not None}
    for name, value in found.items():
        is_right = type(value) is bool if name == 'norm_pix' else type(value) is int and value > 0
        if not is_right:
            kind = 'True nor False' if name == 'norm_pix' else 'a positive integer'
            wrong = 'neither' if name == 'norm_pix' else 'not'
            raise ValueError(
                f'the config in the checkpoint says {name}={_short(value)}, which is {wrong} {kind}'
            )
    return found


def _keywords(text: str) -> list[tuple[str, object]]:
    """Every ``name=constant`` in the ``model = dict(...)`` of a config's text, which is parsed and
    not run.
    """
    try:
        tree = ast.parse(text)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return []
    models = [
        n
        for n in tree.body
        if isinstance(n, ast.Assign) and getattr(n.targets[0], 'id', None) == 'model'
    ]
    nodes = [node for model in models for node in ast.walk(model) if isinstance(node, ast.keyword)]
    return [(node.arg, node.value.value) for node in nodes if isinstance(node.value, ast.Constant)]


def heads_of(width: int, said: int | None, stored: int | None, decoder: bool = False) -> int:
    """The number of attention heads: as ``said``, else as the checkpoint ``stored`` it, else by a
    known ``width``.

    Raises:
        ValueError: if none of them tells, or the width cannot be split so.
    """
    heads = said or stored or (_DECODER_HEADS if decoder else _HEADS).get(width)
    option = '--decoder-num-heads' if decoder else '--num-heads'
    if heads is None:
        raise ValueError(
            f'the weights do not tell into how many heads a width of {width} is split; say {option}'
        )
    if heads < 1 or width % heads:
        raise ValueError(
            f'a width of {width} cannot be split into {heads} heads; say the right number by '
            f'{option}'
        )
    return heads
