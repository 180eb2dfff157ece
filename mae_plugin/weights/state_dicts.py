"""State dicts in files: finds the weights in a checkpoint, and writes weights to a file."""

from __future__ import annotations

import copy
from collections import OrderedDict
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from ..utils._compat.torch import set_metadata


def weights_of(checkpoint: Any) -> dict[str, Tensor]:
    """Returns the weights in a checkpoint: under ``state_dict``, under ``model``, or bare.

    The result is empty for a checkpoint without weights.
    """
    if not isinstance(checkpoint, dict):
        return {}
    for name in ('state_dict', 'model'):
        if isinstance(checkpoint.get(name), dict):
            checkpoint = checkpoint[name]
            break
    for key, value in checkpoint.items():
        if not isinstance(key, str) or not isinstance(value, Tensor):
            return {}
    return checkpoint


def with_grid(weights: dict[str, Tensor], grid: tuple[int, int] | None) -> OrderedDict[str, Tensor]:
    """Returns weights with their grid of patches noted, as a model's ``state_dict()`` notes it.

    See :func:`~mae_plugin.models.grids.note_grid`.
    """
    noted = OrderedDict(weights)
    if grid is not None:
        # '' for an encoder without a prefix.
        names = ('', 'backbone', 'neck')
        notes = {name: dict(version=1, grid=tuple(grid)) for name in names}
        set_metadata(noted, OrderedDict(notes))
    return noted


def write_weights(state_dict: dict[str, Tensor], target: Path, layout: str) -> None:
    """Writes a ``.safetensors`` file, or a ``.pth`` file in the form that the layout's code reads.

    Args:
        state_dict: the weights.
        target: the file.
        layout: the layout of the weights. mmpretrain reads them from ``state_dict``, the authors'
            code from ``model``.

    Raises:
        ValueError: for another suffix.
    """
    # copy.copy keeps the notes beside the state dict. Each tensor is cloned because a view would
    # bring the whole storage along.
    state_dict = copy.copy(state_dict)
    for key, tensor in state_dict.items():
        state_dict[key] = tensor.clone(memory_format=torch.contiguous_format)
    if target.suffix == '.safetensors':
        # safetensors creates files that only their owner can read; this one gets the usual mode.
        target.touch()
        mode = target.stat().st_mode
        save_file(state_dict, target, metadata=dict(format='pt'))
        target.chmod(mode)
    elif target.suffix == '.pth':
        if layout == 'mmpretrain':
            torch.save(dict(state_dict=state_dict), target)
        elif layout == 'mae':
            torch.save(dict(model=state_dict), target)
        else:
            torch.save(state_dict, target)
    else:
        raise ValueError(
            f'{target.name} ends neither in .pth nor in .safetensors, which decide the format'
        )
