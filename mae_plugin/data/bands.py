"""Pixels as they are stored: any number of bands of any number type, from TIFF, NumPy, 16-bit PNG and other files."""

from __future__ import annotations

from io import BytesIO

import cv2
import numpy as np

from .formats import NUMPY, PNG, TIFF, open_image
from .limits import check_size
from .numpy_file import read_npy
from .plausible import check_png


def read_bands(data: bytes) -> np.ndarray:
    """Decodes the content of a file to (H, W, C) with the bands and the number type that it has.

    Arrays in ``.npy`` files, and TIFF files whose pages are not marked as samples of one image, may be (H, W),
    (H, W, C) or (C, H, W): of the first and the last axis the shorter is the bands'. 16-bit images keep their 16 bits,
    palettes become colours.

    Raises:
        ValueError: if there are more axes than height, width and bands, or the image is too large
            (:func:`~mae_plugin.data.limits.check_size`).
    """
    if data.startswith(NUMPY):
        pixels = _bands_last(read_npy(data))
    elif data.startswith(TIFF):
        pixels = _read_tiff(data)
    elif data.startswith(PNG) and data[24:25] == b'\x10':
        check_png(data)
        # Pillow has no colour images of 16 bits and drops the lower eight.
        pixels = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
        if pixels is None:
            raise ValueError('the PNG file is damaged')
        pixels = pixels[..., [2, 1, 0, 3][: pixels.shape[2]]] if pixels.ndim == 3 else pixels
    else:
        image = open_image(data)
        pixels = np.asarray(image.convert({'1': 'L', 'P': 'RGB', 'PA': 'RGBA'}.get(image.mode, image.mode)))
    if pixels.ndim not in (2, 3) or pixels.dtype.kind not in 'biuf':
        raise ValueError(f'an array of shape {pixels.shape} and type {pixels.dtype} is no image (H, W, C)')
    # torch knows the machine's own order of bytes alone.
    return np.ascontiguousarray(np.atleast_3d(pixels), pixels.dtype.newbyteorder('='))


def has_no_data(pixels: np.ndarray, nodata: float) -> np.ndarray:
    """(H, W) bool: where all bands of (H, W, C) are ``nodata``, or, if that is NaN, where any is."""
    return np.isnan(pixels).any(axis=-1) if np.isnan(nodata) else (pixels == nodata).all(axis=-1)


def _read_tiff(data: bytes) -> np.ndarray:
    from tifffile import TiffFile

    with TiffFile(BytesIO(data)) as file:
        series = file.series[0]
        # Axes of length one say nothing.
        lengths = dict(zip(series.axes, series.shape, strict=True))
        axes = ''.join(axis for axis, length in lengths.items() if length > 1 or axis in 'YX')
        if len(axes) > 3:
            raise ValueError(f'a TIFF file with the axes {series.axes} {series.shape} is no single image')
        height, width = file.pages[0].imagelength, file.pages[0].imagewidth
        check_size(height, width, series.size // max(1, height * width), series.dtype.itemsize)
        pixels = series.asarray().reshape([lengths[axis] for axis in axes])
        return pixels.transpose([axes.index(axis) for axis in 'YXS']) if 'S' in axes else _bands_last(pixels)


def _bands_last(pixels: np.ndarray) -> np.ndarray:
    first = pixels.ndim == 3 and pixels.shape[0] < pixels.shape[2]
    return pixels.transpose(1, 2, 0) if first else pixels
