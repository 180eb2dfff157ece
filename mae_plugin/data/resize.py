"""Antialiased resizing of arrays of any number type."""

from __future__ import annotations

import numpy as np
import torch
from torch.nn.functional import interpolate

from .decoding.bands import has_no_data


def resize(
    img: np.ndarray,
    size: tuple[int, int],
    interpolation: str = 'bicubic',
    nodata: float | None = None,
) -> np.ndarray:
    """Resizes (H, W, C) with antialiasing to a new array of the given size and the same dtype.

    uint8 images are within rounding of Pillow's resize. uint8 is the only type that torch resizes
    with vectorized integer arithmetic. Other types are resized as floating-point numbers that hold
    all their values (64-bit integers within 53 bits). A bool pixel becomes the majority of its
    surroundings. A pixel that would be mixed with pixels without data becomes ``nodata``.

    Args:
        img: (H, W, C) of any real number type.
        size: height and width of the result.
        interpolation: ``'bicubic'`` or ``'bilinear'``.
        nodata: value of pixels without data (see :func:`has_no_data`); None if there are none.
    """
    if img.shape[:2] == size:
        return img.copy()
    if nodata is not None:
        empty = has_no_data(img, nodata)  # (H, W)
        if empty.any():
            return _resize_around(img, empty, size, interpolation, nodata)
    if img.dtype == np.uint8:
        # channels_last memory: torch's integer kernel reads and writes it without a copy.
        tensor = torch.from_numpy(np.ascontiguousarray(img))[None].permute(0, 3, 1, 2)
    else:
        is_small = img.dtype.itemsize <= 2 or img.dtype == np.float32
        exact = np.float32 if is_small else np.float64
        tensor = torch.from_numpy(np.ascontiguousarray(img, exact)).permute(2, 0, 1)[None]
    out = interpolate(tensor, size=size, mode=interpolation, antialias=True)  # (1, C, h, w)
    return _with_dtype(out[0].permute(1, 2, 0).contiguous().numpy(), img.dtype)


def _resize_around(
    img: np.ndarray, empty: np.ndarray, size: tuple[int, int], interpolation: str, nodata: float
) -> np.ndarray:
    """Resizes an image whose pixels ``empty`` (H, W) hold no data, without mixing them in."""
    # The mean of the others keeps the filler from overshooting the range of the image.
    filler = 0 if empty.all() else img[~empty].mean(axis=0)  # (C,)
    filled = np.where(empty[..., None], filler, img).astype(img.dtype)
    out = resize(filled, size, interpolation)  # (h, w, C)
    share = resize(empty[..., None].astype(np.float32), size, interpolation)[..., 0]  # (h, w)
    out[np.abs(share) > 1e-6] = nodata
    return out


def _with_dtype(out: np.ndarray, dtype: np.dtype) -> np.ndarray:
    """Converts resized values to a dtype: rounded and clipped for integers."""
    if dtype == np.bool_:
        return out >= 0.5
    if np.issubdtype(dtype, np.integer) and out.dtype != dtype:
        limits = np.iinfo(dtype)
        greatest = limits.max
        if dtype.itemsize == 8:
            # 2**63 - 1 is no floating-point number, and the next one above does not fit.
            greatest = np.nextafter(out.dtype.type(limits.max), 0)
        out = out.round().clip(limits.min, greatest)
    return out.astype(dtype, copy=False)
