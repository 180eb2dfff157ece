"""Writes checkpoints without pickled classes, so that ``torch.load(weights_only=True)`` opens them
anywhere.

mmengine's message hub holds HistoryBuffers and numpy scalars. They are written as tensors and
numbers, and HistoryBuffers are made again from those, or from what :mod:`.constructors` reads from
mmengine's own checkpoints.
"""

from __future__ import annotations

import logging
import os
from collections import Counter, OrderedDict
from functools import cache

import numpy as np
import torch
from mmengine.logging import HistoryBuffer, print_log
from torch import Tensor

from ..utils._compat.torch import copy_metadata

_BUFFER_KEYS = {'log_history', 'count_history', 'max_length'}


def to_plain(value: object, path: str = 'checkpoint') -> object:
    """Returns a checkpoint, or a part of one, as tensors, numbers, strings and containers of them.

    Containers are copied, tensors are not. What has no such form is kept as it is, with a warning
    in the log.

    Args:
        value: the checkpoint.
        path: how the warning names the value.
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
    # Subclasses, such as members of an IntEnum, become the numbers and strings that they are.
    for kind in (bool, int, float, complex, str, bytes):
        if isinstance(value, kind):
            return value if type(value) is kind else kind(value)
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
    for kind in (list, tuple):
        if isinstance(value, kind):
            return kind(to_plain(item, f'{path}[{index}]') for index, item in enumerate(value))
    if isinstance(value, set | frozenset):
        return {to_plain(item, path) for item in value}
    _warn(path, f'{type(value).__module__}.{type(value).__qualname__}')
    return value


def _numpy_to_plain(value: np.ndarray | np.generic, path: str) -> object:
    if value.dtype.kind not in 'biufc' or value.dtype.itemsize > (
        16 if value.dtype.kind == 'c' else 8
    ):
        # Strings, objects and extended precision.
        if isinstance(value, np.longdouble):
            return float(value)
        item = value.tolist()
        return value if type(item) is type(value) else to_plain(item, path)
    if isinstance(value, np.generic):
        return value.item()
    return torch.from_numpy(value.astype(value.dtype.newbyteorder('='), order='C'))


@cache
def _warn(path: str, kind: str) -> None:
    print_log(
        f'{path} is a {kind}, which is not data; checkpoints of this run can be loaded with '
        '--trust-checkpoint alone.',
        'current',
        logging.WARNING,
    )


def restore_message_hub(checkpoint: dict) -> None:
    """Makes HistoryBuffers, in place, of the plain data that the message hub of a checkpoint holds
    for them.

    Raises:
        ValueError: if the data are not two rows of as many numbers.
    """
    hub = checkpoint.get('message_hub')
    scalars = hub.get('log_scalars') if isinstance(hub, dict) else None
    if not isinstance(scalars, dict):
        return
    for name, value in scalars.items():
        on_meta = isinstance(value, dict) and any(
            isinstance(v, Tensor) and v.is_meta for v in value.values()
        )
        if isinstance(value, dict) and value.keys() == _BUFFER_KEYS and not on_meta:
            history, counts = _row(value['log_history'], name), _row(value['count_history'], name)
            length = value['max_length']
            if len(history) != len(counts) or type(length) is not int or length < 1:
                raise ValueError(
                    f'the history of {name} in its message hub is not made of two rows of as many '
                    'numbers'
                )
            scalars[name] = HistoryBuffer(history[-length:], counts[-length:], length)


def _row(values: object, name: object) -> np.ndarray:
    row = values.cpu().numpy() if isinstance(values, Tensor) else values
    if not isinstance(row, np.ndarray) or row.ndim != 1 or row.dtype.kind not in 'biuf':
        raise ValueError(
            f'the history of {name} in its message hub is not made of two rows of as many numbers'
        )
    return row
