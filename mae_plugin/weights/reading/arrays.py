"""Builds numpy's arrays and scalars, of numbers and truth values, from arguments in a pickle."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from .values import Name, Unfinished

_KINDS = {*('b1', 'i1', 'i2', 'i4', 'i8', 'u1', 'u2', 'u4', 'u8', 'f2', 'f4', 'f8', 'c8', 'c16')}


def _numpy_dtype(kind: Any, align: Any = False, copy: Any = False) -> Unfinished:
    """Builds a dtype of numbers, whose byte order follows as its state."""
    if type(kind) is not str or kind not in _KINDS:
        raise ValueError('an array in it holds neither numbers nor truth values')

    def finish(state: Any) -> np.dtype:
        # Version and byte order, then entries that only structures and subarrays have.
        is_order = type(state) is tuple and state[:2] in ((3, '<'), (3, '>'), (3, '|'), (3, '='))
        if not is_order or any(state[2:5]):
            raise ValueError('an array in it holds neither numbers nor truth values')
        return np.dtype(kind).newbyteorder(state[1])

    return Unfinished(finish)


def _from_bytes(content: Any, dtype: Any) -> np.ndarray:
    """Builds a flat array from its bytes."""
    if type(content) is not bytes or not isinstance(dtype, np.dtype):
        raise ValueError('an array in it has no content')
    if dtype.kind == 'b':
        # numpy writes beyond its results for bytes other than 0 and 1 in a mask.
        return np.frombuffer(content, np.uint8) != 0
    # A copy, because an array on the bytes object would be read-only.
    return np.frombuffer(content, dtype).astype(dtype.newbyteorder('='))


def _numpy_scalar(dtype: Any, content: Any) -> np.generic:
    """Builds a scalar, as ``numpy.core.multiarray.scalar``."""
    (value,) = _from_bytes(content, dtype)
    return value


def _numpy_array(kind: Any, shape: Any, code: Any) -> Unfinished:
    """Builds an array, as ``numpy.core.multiarray._reconstruct``; its content follows as state."""
    if type(kind) is not Name or kind.path != 'numpy.ndarray':
        raise ValueError('an array in it is of a subclass')

    def finish(state: Any) -> np.ndarray:
        _version, shape, dtype, fortran, content = state
        return _shaped(_from_bytes(content, dtype), shape, fortran)

    return Unfinished(finish)


def _numpy_from_buffer(content: Any, dtype: Any, shape: Any, order: Any) -> np.ndarray:
    """Builds an array, as ``numpy.core.numeric._frombuffer``."""
    return _shaped(_from_bytes(content, dtype), shape, type(order) is str and order == 'F')


def _shaped(flat: np.ndarray, shape: Any, fortran: Any) -> np.ndarray:
    """Returns a flat array in its shape, in the order of C or Fortran."""
    is_shape = type(shape) is tuple and len(shape) <= 32
    if not is_shape or not all(type(n) is int and n >= 0 for n in shape):
        raise ValueError('the shape of an array in it is impossible')
    if math.prod(shape) != flat.size or type(fortran) not in (bool, int):
        raise ValueError('an array in it has another number of elements than its shape')
    return flat.reshape(shape, order='F' if fortran else 'C')


_FUNCTIONS: dict[str, Callable] = {
    'multiarray._reconstruct': _numpy_array,
    'multiarray.scalar': _numpy_scalar,
    'numeric._frombuffer': _numpy_from_buffer,
}
ARRAY_MAKERS: dict[str, Callable | None] = {
    'numpy.dtype': _numpy_dtype,
    'numpy.ndarray': None,
    # numpy 2 moved these; files written with either version name them differently.
    **{f'numpy.core.{name}': make for name, make in _FUNCTIONS.items()},
    **{f'numpy._core.{name}': make for name, make in _FUNCTIONS.items()},
}
"""By numpy's names in a pickle, as in :data:`.constructors.MAKERS`."""
