"""The functions that build plain values for the names in checkpoints.

The names are those in checkpoints of mmengine's Runner, the MAE authors' training code, timm and
Hugging Face, as all versions of torch and numpy write them. Each function checks its arguments.
Parameters become tensors; a HistoryBuffer and an ``argparse.Namespace`` become dicts.
"""

from __future__ import annotations

from collections import Counter, OrderedDict
from collections.abc import Callable
from typing import Any

import torch

from .arrays import ARRAY_MAKERS
from .tensors import TENSOR_MAKERS
from .values import Name, RefusedName, Unfinished, checked_key

_BUFFER = 'mmengine.logging.history_buffer.HistoryBuffer'
_STATISTICS = ('min', 'max', 'current', 'mean')


def _ordered_dict(items: Any = ()) -> OrderedDict:
    """Builds an OrderedDict from pairs."""
    are_pairs = type(items) in (tuple, list) and all(
        type(item) in (tuple, list) and len(item) == 2 for item in items
    )
    if not are_pairs:
        raise ValueError('an OrderedDict in it is not made of pairs')
    return OrderedDict((checked_key(key), value) for key, value in items)


def _default_dict(default: Any = None) -> dict:
    """Builds a dict in place of a defaultdict, whose default could be any function."""
    # Its items follow as instructions of their own.
    return {}


def _counter(counts: Any = None) -> Counter:
    """Builds a Counter."""
    counts = {} if counts is None else counts
    if type(counts) is not dict or not all(type(count) is int for count in counts.values()):
        raise ValueError('a Counter in it does not hold integers')
    return Counter(counts)


def _set(items: Any = ()) -> set:
    """Builds a set."""
    if type(items) not in (tuple, list):
        raise ValueError('a set in it is not made from a list')
    return set(map(checked_key, items))


def _bytes(text: Any = '', encoding: Any = 'latin1') -> bytes:
    """Builds bytes, which old protocols write as text."""
    if type(text) is not str or type(encoding) is not str or encoding != 'latin1':
        raise ValueError('a string of bytes in it is written in an unknown way')
    return text.encode('latin1')


def _complex(real: Any, imaginary: Any) -> complex:
    """Builds a complex number."""
    if type(real) is not float or type(imaginary) is not float:
        raise ValueError('a complex number in it is not made of numbers')
    return complex(real, imaginary)


def _namespace() -> Unfinished:
    """Builds a dict in place of an ``argparse.Namespace``."""

    def finish(state: Any) -> dict:
        if type(state) is not dict or not all(type(name) is str for name in state):
            raise ValueError('the names of arguments in it are not strings')
        return state

    return Unfinished(finish)


def _method(owner: Any, name: Any) -> Name:
    """Returns the name of a statistic, which a HistoryBuffer pickles as a call of ``getattr``."""
    if type(owner) is not Name or type(name) is not str:
        raise RefusedName('builtins.getattr')
    if owner.path != _BUFFER or name not in _STATISTICS:
        raise RefusedName(f'{owner.path}.{name}')
    return Name(f'{_BUFFER}.{name}')


def _history_buffer() -> Unfinished:
    """Builds a dict in place of a HistoryBuffer."""

    def finish(state: Any) -> dict:
        if type(state) is not dict:
            raise ValueError('a HistoryBuffer in it has no content')
        return dict(
            log_history=state['_log_history'],
            count_history=state['_count_history'],
            max_length=state['max_length'],
        )

    return Unfinished(finish)


MAKERS: dict[str, Callable | torch.dtype | None] = {
    **TENSOR_MAKERS,
    **ARRAY_MAKERS,
    'collections.OrderedDict': _ordered_dict,
    'collections.defaultdict': _default_dict,
    'collections.Counter': _counter,
    'builtins.set': _set,
    'builtins.frozenset': lambda items=(): frozenset(_set(items)),
    'builtins.bytes': _bytes,
    'builtins.complex': _complex,
    '_codecs.encode': _bytes,
    **dict.fromkeys(f'builtins.{name}' for name in ('dict', 'list', 'int', 'float', 'str')),
    'argparse.Namespace': _namespace,
    'builtins.getattr': _method,
    _BUFFER: _history_buffer,
    **dict.fromkeys(f'{_BUFFER}.{name}' for name in _STATISTICS),
}
"""By name that a checkpoint may hold, the function that builds its value from arguments.

A dtype stands for itself. None marks a name that is nothing but an argument of others.
"""
