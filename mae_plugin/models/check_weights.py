"""Refuses weights that would leave a model, or a part of it, at its random initialization.

mmengine only logs a warning for such weights, and torch converts or skips some without an error.
"""

from __future__ import annotations

import weakref
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from ..utils._compat.torch import get_metadata, set_metadata
from .adapt import ENCODER_KEYS, compare, wanted_by

# Note beside a state dict that was checked. A weak reference to the model is its value, which no
# file can contain.
_CHECKED = 'checked_for'


def check_weights(
    state_dict: Mapping[str, Tensor],
    model: nn.Module,
    source: str = 'the checkpoint',
    exact: bool = False,
) -> None:
    """Checks that weights match a model, apart from the sizes that loading adapts.

    Tensors are compared in groups, such as all blocks of the encoder. A group that only one side
    has is allowed: an encoder may lack the last norm, and its checkpoint a classifier. Within a
    group that both sides have, every tensor and shape must agree.

    Args:
        state_dict: the weights.
        model: the model that loads them.
        source: the name of the weights in an error.
        exact: whether another number of channels is refused too, as the state of an optimizer
            cannot be adapted.

    Raises:
        ValueError: naming the groups that differ with one example each, or as
            :func:`check_tensors` and :func:`~.grids.source_grid` do.
    """
    check_tensors(state_dict, model, source)
    wanted = wanted_by(model)
    if exact:
        wanted = [replace(part, channels=None) for part in wanted]
    shapes = {key: tensor.shape for key, tensor in model.state_dict().items()}
    report = compare(state_dict, wanted, shapes=shapes)

    # Other backbones resize their position embeddings by load hooks of their own.
    adapted = {part.prefix + part.keys.positions for part in wanted if part.grid is not None}
    reshaped = {
        key: pair
        for key, pair in report.reshaped.items()
        if key in adapted or not key.endswith(ENCODER_KEYS.positions)
    }
    shared = set(map(_group, shapes)) & set(map(_group, state_dict))
    missing = [key for key in report.missing if _group(key) in shared]
    unexpected = [key for key in report.unexpected if _group(key) in shared]
    problems = []
    if shapes and len(report.missing) == len(shapes):
        problems.append(f'it holds {_summary(state_dict)}, but the model {_summary(shapes)}')
    if missing:
        problems.append(f'it lacks {_summary(missing)}')
    if unexpected:
        problems.append(f'the model has no {_summary(unexpected)}')
    if reshaped:
        key, (stored, own) = next(iter(reshaped.items()))
        problems.append(
            f'{len(reshaped)} tensors have another shape, the first {key} {stored} instead of {own}'
        )
    if problems:
        raise ValueError(
            f'{source} does not fit {type(model).__name__}: {"; ".join(problems)}; choose the '
            'config that it was trained with, or convert it'
        )


def check_complete(
    state_dict: Mapping[str, Tensor], model: nn.Module, source: str = 'the checkpoint'
) -> None:
    """Checks that weights hold every parameter of a model that is about to be evaluated.

    Args:
        state_dict: the weights.
        model: the model that loads them.
        source: the name of the weights in an error.

    Raises:
        ValueError: naming the tensors that are missing.
    """
    # Parameters alone: a linear probe whose BatchNorm is folded into its linear layer has no
    # statistics, and needs none.
    missing = [key for key, _ in model.named_parameters() if key not in state_dict]
    if missing:
        names = ', '.join(missing[:4])
        if len(missing) > 4:
            names += f' and {len(missing) - 4} more'
        raise ValueError(
            f'{source} lacks {names}, so {type(model).__name__} would be evaluated with untrained '
            'weights; name a checkpoint of its own training, such as one of fine-tuning, or None '
            'for the model as it is built'
        )


def check_tensors(
    state_dict: Mapping[str, Tensor], model: nn.Module, source: str = 'the checkpoint'
) -> None:
    """Checks that torch can copy weights into a model, which may have another precision.

    torch skips some of the others without an error, and converts some to wrong values.

    Args:
        state_dict: the weights.
        model: the model that loads them.
        source: the name of the weights in an error.

    Raises:
        ValueError: if a weight is not a tensor, has no content, is sparse or quantized, or is of
            another kind of numbers than the model's, such as integers for reals.
    """
    # model.state_dict() would gather sharded weights.
    for key, own in (
        *model.named_parameters(remove_duplicate=False),
        *model.named_buffers(remove_duplicate=False),
    ):
        problem = _problem_of(state_dict[key], own) if key in state_dict else None
        if problem:
            raise ValueError(
                f'{source} does not fit {type(model).__name__}: {key} is {problem}; save dense '
                'tensors'
            )


def mark_checked(state_dict: Any, model: nn.Module) -> None:
    """Notes beside a state dict, an OrderedDict, that :func:`check_weights` accepted it."""
    notes = dict(get_metadata(state_dict) or {})
    notes[''] = {**notes.get('', {}), _CHECKED: weakref.ref(model)}
    set_metadata(state_dict, notes)


def is_checked(local_metadata: Mapping, model: nn.Module) -> bool:
    """Returns whether the notes of a model beside a state dict are of :func:`mark_checked`."""
    reference = local_metadata.get(_CHECKED)
    return isinstance(reference, weakref.ref) and reference() is model


def _problem_of(stored: object, own: Tensor) -> str | None:
    """Returns why torch cannot copy a stored weight into a model's own, or None."""
    if not isinstance(stored, Tensor):
        return f'a {type(stored).__module__}.{type(stored).__qualname__}, which is not a tensor'
    if stored.is_meta and not own.is_meta:
        return 'on the meta device, without content'
    if stored.is_quantized:
        return 'quantized'
    if stored.layout != torch.strided:
        return 'sparse'
    if _kind(stored.dtype) != _kind(own.dtype):
        return f'of {stored.dtype}, where the model has {own.dtype}'
    return None


def _kind(dtype: torch.dtype) -> str:
    """Returns the kind of numbers of a dtype, whatever its precision."""
    if dtype.is_floating_point:
        return 'real'
    if dtype.is_complex:
        return 'complex'
    return 'bool' if dtype == torch.bool else 'integer'


def _group(key: str) -> str:
    """Returns the group of a tensor: its list of blocks, or the module that it is a part of."""
    parts = key.split('.')
    for index, part in enumerate(parts):
        if part.isdigit():
            return '.'.join(parts[: max(index, 1)])
    return '.'.join(parts[: max(len(parts) - 1, 1)])


def _summary(keys: Iterable[str], shown: int = 4) -> str:
    """Returns the largest groups of some tensors, each with its number of tensors."""
    groups = Counter(map(_group, keys))
    if not groups:
        return 'no tensors'
    names = ', '.join(f'{name} ({number})' for name, number in groups.most_common(shown))
    more = len(groups) - shown
    return f'{names} and {more} more groups' if more > 0 else names
