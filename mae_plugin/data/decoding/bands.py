"""Pixels as they are stored: any number of bands of any number type, from TIFF, NumPy, 16-bit PNG
and other files.
"""

from __future__ import annotations

import numpy as np
from PIL import Image

from .heif import is_heif, read_deep_heif
from .image_formats import NUMPY, PNG, TIFF, open_image
from .numpy_file import read_npy
from .orientation import parse_orientation, upright
from .plausible import check_png
from .tiff import Page, read_tiff

# By the color type in the header.
_PNG_CHANNELS = {0: 1, 2: 3, 4: 2, 6: 4}


def read_bands(data: bytes, page: Page = None) -> np.ndarray:
    """Decodes the content of a file to (H, W, C) with the bands and the number type that it has.

    Arrays in ``.npy`` files may be (H, W), (H, W, C) or (C, H, W): of the first and the last axis
    the shorter is the bands'. TIFF gives what GDAL gives (see
    :func:`~mae_plugin.data.decoding.tiff.read_tiff`). 16-bit images keep their 16 bits. Palettes
    become colors, with alpha if one of the colors is transparent. docs/any-image.md has a table of
    all forms.

    Args:
        data: content of the file.
        page: of a TIFF file, or frame of an animation: its number from 0; ``'all'``, of TIFF alone,
            takes the pages as bands; None, the only page of a TIFF file or the first frame.

    Raises:
        ValueError: if there are more axes than height, width and bands, if there is no such page,
            if a TIFF file has several pages that are not said to be bands, or if the image is too
            large (:func:`~mae_plugin.data.decoding.limits.check_size`).
    """
    if data.startswith(TIFF):
        pixels = read_tiff(data, page)
    elif data.startswith(NUMPY):
        check_single(page)
        pixels = _bands_last(read_npy(data))
    elif data.startswith(PNG) and data[24:25] == b'\x10' and not page:
        pixels = _read_deep_png(data)
    else:
        pixels = read_deep_heif(data, page) if is_heif(data) else None
        if pixels is None:
            pixels = _with_palette_colors(open_image(data, page))
    if pixels.dtype.kind == 'c':
        raise ValueError(
            f'its pixels are {pixels.dtype}; store real and imaginary part, or the amplitude, as '
            'bands'
        )
    if pixels.ndim not in (2, 3) or pixels.dtype.kind not in 'biuf':
        raise ValueError(
            f'an array of shape {pixels.shape} and type {pixels.dtype} is no image (H, W, C)'
        )
    # torch knows the machine's own order of bytes alone.
    return np.ascontiguousarray(np.atleast_3d(pixels), pixels.dtype.newbyteorder('='))


def check_single(page: Page) -> None:
    """Raises a ValueError if a page other than the first is asked for, in a format that has no
    pages.
    """
    if page not in (None, 0):
        raise ValueError(f'page={page!r} does not exist: the format holds one image')


def has_no_data(pixels: np.ndarray, nodata: float) -> np.ndarray:
    """(H, W) bool: where all bands of (H, W, C) are ``nodata``, or, if that is NaN, where any
    is.
    """
    return np.isnan(pixels).any(axis=-1) if np.isnan(nodata) else (pixels == nodata).all(axis=-1)


def _with_palette_colors(image: Image.Image) -> np.ndarray:
    """The pixels of an image whose palette, if it has one, is replaced by its colors; 1 bit becomes
    0 and 255.
    """
    mode = image.mode
    if mode == 'P':
        mode = 'RGBA' if 'transparency' in image.info else 'RGB'
    return np.asarray(image.convert({'1': 'L', 'PA': 'RGBA'}.get(mode, mode)))


def _read_deep_png(data: bytes) -> np.ndarray:
    """A PNG of 16 bits: Pillow drops the lower eight of colors, OpenCV makes four channels of gray
    with alpha.
    """
    # Takes a moment, and most data sets hold no such file.
    from imagecodecs import PngError, png_decode

    check_png(data)
    channels = _PNG_CHANNELS.get(data[25], 1)
    try:
        pixels = np.atleast_3d(png_decode(data))
    except PngError as error:
        raise ValueError(f'the PNG file is damaged: {error}') from None
    # A color that tRNS calls transparent came out as alpha.
    exif, xmp = _png_chunk(data, b'eXIf'), _png_chunk(data, b'iTXt', b'XML:com.adobe.xmp\0')
    return upright(pixels[..., :channels], parse_orientation(exif, xmp))


def _png_chunk(data: bytes, kind: bytes, start: bytes = b'') -> bytes:
    """The content of the first chunk of a kind that starts as said, empty if there is none."""
    place = len(PNG)
    while place + 8 <= len(data):
        length = int.from_bytes(data[place : place + 4], 'big')
        content = data[place + 8 : place + 8 + length]
        if data[place + 4 : place + 8] == kind and content.startswith(start):
            return content
        place += length + 12
    return b''


def _bands_last(pixels: np.ndarray) -> np.ndarray:
    first = pixels.ndim == 3 and pixels.shape[0] < pixels.shape[2]
    return pixels.transpose(1, 2, 0) if first else pixels
