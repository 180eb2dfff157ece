"""Makes numpy's arrays and scalars of numbers and truth values of what a pickle says of them."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from .values import Name, Unfinished

_KINDS = {*('b1', 'i1', 'i2', 'i4', 'i8', 'u1', 'u2', 'u4', 'u8', 'f2', 'f4', 'f8', 'c8', 'c16')}


def _numpy_dtype(kind: object, align: object = False, copy: object = False) -> Unfinished:
    if type(kind) is not str or kind not in _KINDS:
        raise ValueError('an array in it holds neither numbers nor truth values')

    def finish(state: object) -> np.dtype:
        # Version and byte order, then what only structures and subarrays have.
        if (
            type(state) is not tuple
            or state[:2] not in ((3, '<'), (3, '>'), (3, '|'), (3, '='))
            or any(state[2:5])
        ):
            raise ValueError('an array in it holds neither numbers nor truth values')
        return np.dtype(kind).newbyteorder(state[1])

    return Unfinished(finish)


def _from_bytes(content: object, dtype: object) -> np.ndarray:
    if type(content) is not bytes or not isinstance(dtype, np.dtype):
        raise ValueError('an array in it has no content')
    if dtype.kind == 'b':
        return np.frombuffer(content, np.uint8) != 0
    # A copy, as the bytes cannot be changed.
    return np.frombuffer(content, dtype).astype(dtype.newbyteorder('='))


def _numpy_scalar(dtype: object, content: object) -> np.generic:
    (value,) = _from_bytes(content, dtype)
    return value


def _numpy_array(kind: object, shape: object, code: object) -> Unfinished:
    if type(kind) is not Name or kind.path != 'numpy.ndarray':
        raise ValueError('an array in it is of a type of its own')

    def finish(state: object) -> np.ndarray:
        _version, shape, dtype, fortran, content = state
        return _shaped(_from_bytes(content, dtype), shape, fortran)

    return Unfinished(finish)


def _numpy_from_buffer(content: object, dtype: object, shape: object, order: object) -> np.ndarray:
    return _shaped(_from_bytes(content, dtype), shape, type(order) is str and order == 'F')


def _shaped(flat: np.ndarray, shape: object, fortran: object) -> np.ndarray:
    if (
        type(shape) is not tuple
        or len(shape) > 32
        or not all(type(n) is int and n >= 0 for n in shape)
    ):
        raise ValueError('the shape of an array in it is impossible')
    if math.prod(shape) != flat.size or type(fortran) not in (bool, int):
        raise ValueError('an array in it has another number of elements than its shape')
    return flat.reshape(shape, order='F' if fortran else 'C')


ARRAY_MAKERS: dict[str, Callable | None] = {
    'numpy.dtype': _numpy_dtype,
    'numpy.ndarray': None,
    # numpy 2 moved these; files written with either version name them differently.
    **{
        f'{package}.{name}': make
        for package in ('numpy.core', 'numpy._core')
        for name, make in {
            'multiarray._reconstruct': _numpy_array,
            'multiarray.scalar': _numpy_scalar,
            'numeric._frombuffer': _numpy_from_buffer,
        }.items()
    },
}
"""What numpy's names stand for, as for :data:`.constructors.MAKERS`."""
