"""Lets torch load mmengine's own checkpoints, and those of the MAE authors, with ``weights_only=True``.

Since version 2.6 ``torch.load`` refuses every type that is not on its list, and mmengine's Runner writes a message
hub of HistoryBuffers and numpy scalars into each checkpoint, the authors' training code its arguments. The types below
are all that such checkpoints name; anything else is still refused.
"""

from __future__ import annotations

import codecs
import pickle
from argparse import Namespace
from collections.abc import Callable

import numpy as np
import torch
from mmengine.logging import HistoryBuffer

_STATISTICS = ('min', 'max', 'current', 'mean')


def _history_buffer_method(owner: type, name: str) -> Callable:
    """Stands in for the ``getattr`` by which a HistoryBuffer pickles its statistics, and reaches nothing else."""
    if owner is not HistoryBuffer or name not in _STATISTICS:
        owner = getattr(owner, '__qualname__', owner)
        raise pickle.UnpicklingError(f'the checkpoint asks for {owner}.{name}, which no Runner checkpoint needs')
    return getattr(HistoryBuffer, name)


def allow_runner_types() -> None:
    """Adds the types that such checkpoints hold to torch's list of safe ones; calling it again changes nothing."""
    dtypes = [type(np.dtype(kind)) for kind in (np.float32, np.float64, np.int32, np.int64, np.uint32, np.bool_)]
    allowed = [
        (kind, f'{kind.__module__}.{kind.__qualname__}')
        for kind in (HistoryBuffer, Namespace, np.dtype, np.ndarray, *dtypes)
    ]
    allowed += [(_history_buffer_method, 'builtins.getattr'), (codecs.encode, '_codecs.encode')]
    # numpy 2 moved these two; files written with either version name them differently.
    for package in ('numpy.core', 'numpy._core'):
        allowed += [(np.zeros(0).__reduce__()[0], f'{package}.multiarray._reconstruct')]
        allowed += [(np.float64(0).__reduce__()[0], f'{package}.multiarray.scalar')]
    # Pairs of type and name, all of them: onedl-mmengine takes the bare types off the list after each of its loads.
    torch.serialization.add_safe_globals(allowed)
