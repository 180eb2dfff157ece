"""Reads arrays from ``.npy`` files in memory, once their header and their length agree."""

from __future__ import annotations

import math
from io import BytesIO

import numpy as np
from numpy.lib import format as npy

from .limits import check_size


def read_npy(data: bytes) -> np.ndarray:
    """Reads a ``.npy`` file.

    Raises:
        ValueError: if its header is broken or unusually long, its values are Python objects, it is
            empty or too large for an image (:func:`~mae_plugin.data.decoding.limits.check_size`),
            or its bytes are fewer than the header says.
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
        first, last = (shape[0], *shape[1:]), (shape[2], *shape[:2])
        bands, height, width = min(first, last, key=lambda sides: sides[0])
        check_size(height, width, bands, dtype.itemsize)
    size, present = math.prod(shape) * dtype.itemsize, len(data) - file.tell()
    if size > present:
        raise ValueError(
            f'an array of shape {shape} takes {size} bytes, and EOF comes after {present}'
        )
    values = (
        np.frombuffer(data, dtype, math.prod(shape), file.tell())
        if size > 0
        else np.empty(0, dtype)
    )
    # A copy, as torch does not take arrays that cannot be written to.
    return values.reshape(shape, order='F' if is_fortran else 'C').copy()
