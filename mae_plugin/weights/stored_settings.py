"""Settings of a model that its weights do not show, as far as a checkpoint stores them.

Nothing in a checkpoint is run: the config of a Runner, which is Python, is parsed.
"""

from __future__ import annotations

import argparse
import ast
from collections.abc import Iterator
from typing import Any

from mmpretrain.models import VisionTransformer
from torch import Tensor

from ..models.grids import stored_grid
from .hugging_face import config_grid, shorten

_HF_NAMES = dict(
    num_heads='num_attention_heads',
    decoder_num_heads='decoder_num_attention_heads',
    norm_pix='norm_pix_loss',
)


def stored_settings(checkpoint: dict) -> dict[str, int | bool]:
    """Returns the numbers of heads and the normalization of targets that a checkpoint stores.

    They are read from a Hugging Face ``config.json``, the arguments of the authors' code, or the
    config of a Runner.

    Returns:
        Any of ``num_heads``, ``decoder_num_heads`` and ``norm_pix``.

    Raises:
        ValueError: for a number of heads that is not a positive integer, or a ``norm_pix`` that is
            not a bool.
    """
    found = {
        **_from_hugging_face(checkpoint),
        **_from_arguments(checkpoint),
        **_from_runner(checkpoint),
    }
    found = {name: value for name, value in found.items() if value is not None}
    for name, value in found.items():
        if name == 'norm_pix':
            is_valid, expected = type(value) is bool, 'neither True nor False'
        else:
            is_valid, expected = type(value) is int and value > 0, 'not a positive integer'
        if not is_valid:
            raise ValueError(
                f'the config in the checkpoint has {name}={shorten(value)}, which is {expected}'
            )
    return found


def grid_of(checkpoint: dict, weights: dict[str, Tensor]) -> tuple[int, int] | None:
    """Returns the rows and columns of patches that a checkpoint stores for its weights, or None.

    Raises:
        ValueError: if a Hugging Face config has sizes that are not positive integers.
    """
    # '.' is the prefix of an encoder without one, which is noted under the empty name.
    return (
        config_grid(checkpoint.get('config'))
        or stored_grid(weights, 'backbone.')
        or stored_grid(weights, '.')
    )


def _from_hugging_face(checkpoint: dict) -> dict[str, Any]:
    """Returns the settings in a Hugging Face ``config.json``."""
    config = checkpoint.get('config')
    if not isinstance(config, dict):
        return {}
    return {ours: config.get(theirs) for ours, theirs in _HF_NAMES.items()}


def _from_arguments(checkpoint: dict) -> dict[str, Any]:
    """Returns the settings in the arguments that the authors' code stores."""
    arguments = checkpoint.get('args')
    # A Namespace is read as a dict, unless the file is trusted and unpickled.
    if isinstance(arguments, argparse.Namespace):
        arguments = vars(arguments)
    return dict(norm_pix=arguments.get('norm_pix_loss')) if isinstance(arguments, dict) else {}


def _from_runner(checkpoint: dict) -> dict[str, Any]:
    """Returns the settings in the config that a Runner stores as text."""
    meta = checkpoint.get('meta')
    text = meta.get('cfg') if isinstance(meta, dict) else None
    found = {}
    for name, value in _keywords(text if isinstance(text, str) else ''):
        if name in _HF_NAMES:
            found[name] = value
        elif name == 'arch' and isinstance(value, str):
            found['num_heads'] = VisionTransformer.arch_zoo.get(value, {}).get('num_heads')
    return found


def _keywords(text: str) -> Iterator[tuple[str, object]]:
    """Yields every ``name=constant`` in the ``model = dict(...)`` of a config's text."""
    try:
        tree = ast.parse(text)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return
    for statement in tree.body:
        if not isinstance(statement, ast.Assign):
            continue
        if getattr(statement.targets[0], 'id', None) != 'model':
            continue
        for node in ast.walk(statement):
            if not isinstance(node, ast.keyword) or not isinstance(node.value, ast.Constant):
                continue
            # A keyword without a name is an unpacked dict, **kwargs.
            if node.arg is not None:
                yield node.arg, node.value.value
