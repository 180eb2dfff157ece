"""Pixels as stored: any bands and number types, from TIFF, NumPy, 16-bit PNG and other files."""

from __future__ import annotations

import numpy as np
from PIL import Image

from .heif import is_heif, read_deep_heif
from .image_formats import NUMPY, PNG, TIFF, open_image
from .numpy_file import read_npy
from .orientation import parse_orientation, upright
from .plausible import check_png
from .tiff import Page, read_tiff

# Number of channels by the color type in the header.
_PNG_CHANNELS = {0: 1, 2: 3, 4: 2, 6: 4}


def read_bands(data: bytes, page: Page = None) -> np.ndarray:
    """Decodes the content of a file to (H, W, C) with its own bands and number type.

    Arrays in ``.npy`` files may be (H, W), (H, W, C) or (C, H, W): the shorter of the first and the
    last axis is the axis of bands. TIFF gives the same values as GDAL (see
    :func:`~mae_plugin.data.decoding.tiff.read_tiff`). 16-bit images keep their 16 bits. Palettes
    become colors, with alpha if one of the colors is transparent. docs/any-image.md has a table of
    all forms.

    Args:
        data: content of the file.
        page: number of a page of a TIFF file, or of a frame of an animation, from 0. ``'all'``
            takes the pages of a TIFF file as bands. None is the only page of a TIFF file or the
            first frame.

    Raises:
        ValueError: if there are more axes than height, width and bands, there is no such page, a
            TIFF file has several pages that are not marked as bands, or the image is too large
            (:func:`~mae_plugin.data.decoding.limits.check_size`).
    """
    if data.startswith(TIFF):
        pixels = read_tiff(data, page)
    elif data.startswith(NUMPY):
        check_single(page)
        pixels = _bands_last(read_npy(data))
    elif data.startswith(PNG) and data[24:25] == b'\x10' and not page:
        pixels = _read_deep_png(data)
    else:
        deep = read_deep_heif(data, page) if is_heif(data) else None
        pixels = _with_palette_colors(open_image(data, page)) if deep is None else deep
    if pixels.dtype.kind == 'c':
        raise ValueError(
            f'its pixels are {pixels.dtype}; store real and imaginary part, or the amplitude, as '
            'bands'
        )
    if pixels.ndim not in (2, 3) or pixels.dtype.kind not in 'biuf':
        raise ValueError(
            f'an array of shape {pixels.shape} and type {pixels.dtype} is no image (H, W, C)'
        )
    # torch supports only the machine's own byte order.
    return np.ascontiguousarray(np.atleast_3d(pixels), pixels.dtype.newbyteorder('='))


def check_single(page: Page) -> None:
    """Raises ValueError if ``page`` is not the first page, for formats with a single image."""
    if page not in (None, 0):
        raise ValueError(f'page={page!r} does not exist: the format holds one image')


def has_no_data(pixels: np.ndarray, nodata: float) -> np.ndarray:
    """Returns where pixels hold no data, as bool (...).

    A pixel holds no data if all its bands equal ``nodata``, or, if that is NaN, if any is NaN.

    Args:
        pixels: (..., C).
        nodata: value without data.
    """
    if np.isnan(nodata):
        return np.isnan(pixels).any(axis=-1)
    return (pixels == nodata).all(axis=-1)


def _with_palette_colors(image: Image.Image) -> np.ndarray:
    """Returns the pixels of an image; a palette is replaced by its colors, 1 bit by 0 and 255."""
    mode = image.mode
    if mode == 'P':
        mode = 'RGBA' if 'transparency' in image.info else 'RGB'
    return np.asarray(image.convert({'1': 'L', 'PA': 'RGBA'}.get(mode, mode)))


def _read_deep_png(data: bytes) -> np.ndarray:
    """Decodes a PNG of 16 bits to (H, W, C) uint16.

    Pillow drops the lower eight bits of colors, and OpenCV makes four channels of gray with alpha.
    """
    # Importing imagecodecs is slow, and most datasets hold no such file.
    from imagecodecs import PngError, png_decode

    check_png(data)
    channels = _PNG_CHANNELS.get(data[25], 1)
    try:
        pixels = np.atleast_3d(png_decode(data))
    except PngError as error:
        raise ValueError(f'the PNG file is damaged: {error}') from None
    exif, xmp = _png_chunk(data, b'eXIf'), _png_chunk(data, b'iTXt', b'XML:com.adobe.xmp\0')
    # A transparent color (tRNS) was decoded to an additional alpha channel, which is dropped.
    return upright(pixels[..., :channels], parse_orientation(exif, xmp))


def _png_chunk(data: bytes, kind: bytes, start: bytes = b'') -> bytes:
    """Returns the content of the first chunk of a kind that begins with ``start``, or b''."""
    place = len(PNG)
    while place + 8 <= len(data):
        # A chunk is its length (4 bytes), its kind (4), its content and a checksum (4).
        length = int.from_bytes(data[place : place + 4], 'big')
        content = data[place + 8 : place + 8 + length]
        if data[place + 4 : place + 8] == kind and content.startswith(start):
            return content
        place += length + 12
    return b''


def _bands_last(pixels: np.ndarray) -> np.ndarray:
    """Moves the bands of (C, H, W) to the end, if the first axis is shorter than the last."""
    is_bands_first = pixels.ndim == 3 and pixels.shape[0] < pixels.shape[2]
    return pixels.transpose(1, 2, 0) if is_bands_first else pixels
