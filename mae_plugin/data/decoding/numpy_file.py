"""Reads arrays from ``.npy`` files in memory, after checks of their header and length."""

from __future__ import annotations

import math
from io import BytesIO

import numpy as np
from numpy.lib import format as npy

from .limits import check_size


def read_npy(data: bytes) -> np.ndarray:
    """Reads the array of a ``.npy`` file.

    Raises:
        ValueError: if the header is damaged or unusually long, the values are Python objects, the
            array is empty or too large for an image
            (:func:`~mae_plugin.data.decoding.limits.check_size`), or the file is shorter than the
            header claims.
    """
    file = BytesIO(data)
    version = npy.read_magic(file)
    if version == (1, 0):
        shape, is_fortran, dtype = npy.read_array_header_1_0(file)
    elif version == (2, 0):
        shape, is_fortran, dtype = npy.read_array_header_2_0(file)
    else:
        raise ValueError(f'a .npy file of version {version} is none of numbers')
    if dtype.hasobject:
        raise ValueError(f'an array of Python objects ({dtype}) is no image')
    if len(shape) == 2:
        check_size(*shape, itemsize=dtype.itemsize)
    elif len(shape) == 3:
        # The shorter of the first and the last axis is the axis of bands.
        first, last = (shape[0], *shape[1:]), (shape[2], *shape[:2])
        bands, height, width = min(first, last, key=lambda sides: sides[0])
        check_size(height, width, bands, dtype.itemsize)
    size, present = math.prod(shape) * dtype.itemsize, len(data) - file.tell()
    if size > present:
        raise ValueError(
            f'an array of shape {shape} takes {size} bytes, and EOF comes after {present}'
        )
    if size > 0:
        values = np.frombuffer(data, dtype, math.prod(shape), file.tell())
    else:
        values = np.empty(0, dtype)
    # A copy, because torch does not accept read-only arrays.
    return values.reshape(shape, order='F' if is_fortran else 'C').copy()
