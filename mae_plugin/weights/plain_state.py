"""Checkpoints without pickled classes, which ``torch.load(weights_only=True)`` opens anywhere.

mmengine's message hub holds HistoryBuffers and numpy scalars. They are written as tensors and
numbers. HistoryBuffers are restored from these, or from the dicts that
:mod:`.reading.constructors` builds for mmengine's own checkpoints.
"""

from __future__ import annotations

import logging
import os
from collections import Counter, OrderedDict
from functools import cache
from typing import Any

import numpy as np
import torch
from mmengine.logging import HistoryBuffer, print_log
from torch import Tensor

from ..utils._compat.torch import copy_metadata

_BUFFER_KEYS = {'log_history', 'count_history', 'max_length'}
_BAD_HISTORY = 'the history of {} in its message hub is not two rows of equally many numbers'


def to_plain(value: Any, path: str = 'checkpoint') -> Any:
    """Returns a checkpoint, or a part of one, as tensors, numbers, strings and containers of them.

    Containers are copied, tensors are not. A value without such a form is returned unchanged, with
    a warning in the log.

    Args:
        value: the checkpoint.
        path: the name of the value in the warning.
    """
    if value is None or isinstance(value, Tensor | torch.dtype | torch.device | torch.Size):
        return value
    if isinstance(value, HistoryBuffer):
        history, counts = value.data
        return dict(
            log_history=to_plain(history, path),
            count_history=to_plain(counts, path),
            max_length=int(value.max_length),
        )
    if isinstance(value, np.ndarray | np.generic):
        return _numpy_to_plain(value, path)
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    # Instances of subclasses, such as members of an IntEnum, become plain numbers and strings.
    for kind in (bool, int, float, complex, str, bytes):
        if isinstance(value, kind):
            return value if type(value) is kind else kind(value)  # type: ignore[arg-type]
    if isinstance(value, dict):
        items = {
            to_plain(key, path): to_plain(item, f'{path}[{key!r}]') for key, item in value.items()
        }
        if type(value) is Counter:
            return Counter(items)
        if not isinstance(value, OrderedDict):
            return items
        plain = OrderedDict(items)
        copy_metadata(value, plain)
        return plain
    if isinstance(value, list | tuple):
        parts = [to_plain(item, f'{path}[{index}]') for index, item in enumerate(value)]
        return parts if isinstance(value, list) else tuple(parts)
    if isinstance(value, set | frozenset):
        return {to_plain(item, path) for item in value}
    _warn(path, f'{type(value).__module__}.{type(value).__qualname__}')
    return value


def _numpy_to_plain(value: np.ndarray | np.generic, path: str) -> Any:
    """Returns a numpy array as a tensor, a numpy scalar as a number."""
    largest = 16 if value.dtype.kind == 'c' else 8
    if value.dtype.kind not in 'biufc' or value.dtype.itemsize > largest:
        # Strings, objects and extended precision have no dtype in torch.
        if isinstance(value, np.longdouble):
            return float(value)
        item = value.tolist()
        return value if type(item) is type(value) else to_plain(item, path)
    if isinstance(value, np.generic):
        return value.item()
    return torch.from_numpy(value.astype(value.dtype.newbyteorder('='), order='C'))


@cache
def _warn(path: str, kind: str) -> None:
    """Warns, once for each value, that a checkpoint can only be unpickled."""
    print_log(
        f'{path} is a {kind}, which is not plain data; checkpoints of this run can only be loaded '
        'with --trust-checkpoint, or after trust_checkpoints() in Python.',
        'current',
        logging.WARNING,
    )


def restore_message_hub(checkpoint: dict) -> None:
    """Restores, in place, the HistoryBuffers in the message hub of a checkpoint from plain data.

    Raises:
        ValueError: if the data are not two rows of equally many numbers.
    """
    hub = checkpoint.get('message_hub')
    scalars = hub.get('log_scalars') if isinstance(hub, dict) else None
    if not isinstance(scalars, dict):
        return
    for name, value in scalars.items():
        if not isinstance(value, dict) or value.keys() != _BUFFER_KEYS:
            continue
        # A checkpoint that is read on the meta device has no numbers.
        if any(isinstance(part, Tensor) and part.is_meta for part in value.values()):
            continue
        history, counts = _row(value['log_history'], name), _row(value['count_history'], name)
        length = value['max_length']
        if len(history) != len(counts) or type(length) is not int or length < 1:
            raise ValueError(_BAD_HISTORY.format(name))
        scalars[name] = HistoryBuffer(history[-length:], counts[-length:], length)


def _row(values: Any, name: str) -> np.ndarray:
    """Returns a tensor or array as an array, if it is one row of numbers."""
    row = values.cpu().numpy() if isinstance(values, Tensor) else values
    if not isinstance(row, np.ndarray) or row.ndim != 1 or row.dtype.kind not in 'biuf':
        raise ValueError(_BAD_HISTORY.format(name))
    return row
