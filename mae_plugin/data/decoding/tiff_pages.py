"""Pages of TIFF files: their samples as stored, after checks of form, size and length."""

from __future__ import annotations

from io import BytesIO
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from .limits import check_size
from .plausible import check_opened
from .tiff_colors import YCBCR

if TYPE_CHECKING:
    from tifffile import TiffFile, TiffPage

CCITT = (2, 3, 4)
"""Values of the tag Compression for the CCITT compressions of 1 bit."""

_ORIENTATION = 274
_UNCOMPRESSED = 1
_OLD_JPEG = 6
# Decoders of these undo subsampling and convert YCbCr to RGB.
_JPEG = (7, 34892, 33007)
# Compressions that tifffile and imagecodecs read, without the raw formats of cameras and
# microscopes.
_COMPRESSIONS = {
    _UNCOMPRESSED: 'no',
    2: 'CCITT RLE',
    3: 'CCITT T.4',
    4: 'CCITT T.6',
    5: 'LZW',
    7: 'JPEG',
    8: 'deflate',
    32773: 'PackBits',
    32946: 'deflate',
    33003: 'JPEG 2000',
    33004: 'JPEG 2000',
    33005: 'JPEG 2000',
    33007: 'JPEG',
    34712: 'JPEG 2000',
    34887: 'LERC',
    34892: 'JPEG',
    34925: 'LZMA',
    34926: 'Zstandard',
    34927: 'WebP',
    34933: 'PNG',
    34934: 'JPEG XR',
    50000: 'Zstandard',
    50001: 'WebP',
    50002: 'JPEG XL',
    52546: 'JPEG XL',
}


def find_page(file: TiffFile, page: int | str | None) -> TiffPage:
    """Returns the page of a number, or the first page for None.

    Raises:
        ValueError: if there is no such page.
    """
    number = page or 0
    if not isinstance(number, int) or not 0 <= number < len(file.pages):
        raise ValueError(
            f'page={page!r} does not exist in a TIFF file of {len(file.pages)} pages, numbered '
            'from 0'
        )
    return file.pages[number]


def read_page(page: TiffPage, file_size: int) -> np.ndarray:
    """Decodes one page to (H, W, C): samples as stored, palette indices, neither turned nor scaled.

    Args:
        page: the page.
        file_size: length of the file in bytes.

    Raises:
        ValueError: if the form of the samples is not supported, the image is too large, or the file
            ends before the data of the page does.
    """
    _check_form(page)
    check_size(page.imagelength, page.imagewidth, page.samplesperpixel, page.dtype.itemsize)
    if page.is_tiled:
        check_size(page.tilelength, page.tilewidth, page.samplesperpixel, page.dtype.itemsize)
    _check_segments(page, file_size)
    if page.compression == _UNCOMPRESSED:
        # As in libtiff, predictors apply to compressed samples only.
        page.predictor = 1
    # A single worker, because data loading runs in several processes already.
    planes = page.asarray(squeeze=False, maxworkers=1)[:, 0]  # (planes, H, W, samples)
    if planes.shape[0] == 1:
        pixels = planes[0]  # (H, W, C)
    else:
        pixels = planes[..., 0].transpose(1, 2, 0)  # (H, W, C)
    if pixels.dtype.kind == 'u' and page.bitspersample == 24:
        pixels = _three_bytes(pixels.astype(np.uint32), page.parent.byteorder)
    # As in GDAL, bits become bytes, and half precision becomes float32.
    wider = {np.dtype(bool): np.uint8, np.dtype(np.float16): np.float32}
    return pixels.astype(wider.get(pixels.dtype.newbyteorder('='), pixels.dtype), copy=False)


def pillow_page(page: TiffPage, data: bytes) -> Image.Image:
    """Opens a page with Pillow, which applies its orientation."""
    image = Image.open(BytesIO(data), formats=['TIFF'])
    image.seek(page.index)
    check_opened(data, image)
    image.load()
    return image


def orientation_of_page(page: TiffPage) -> int:
    """Returns the orientation (1 to 8) of a page, 1 if it has none."""
    return page.tags.valueof(_ORIENTATION, default=1)


def is_jpeg(page: TiffPage) -> bool:
    """Returns whether the page is compressed as JPEG, whose decoder converts YCbCr to RGB."""
    return page.compression in _JPEG


def needs_pillow(page: TiffPage) -> bool:
    """Returns whether the page holds 8-bit colors that Pillow (libtiff) reads and tifffile not."""
    is_subsampled = (
        page.photometric == YCBCR
        and page.is_subsampled
        and page.compression != _UNCOMPRESSED
        and not is_jpeg(page)
    )
    return (
        page.bitspersample == 8
        and page.planarconfig == 1
        and (page.compression == _OLD_JPEG or is_subsampled)
    )


def _three_bytes(pixels: np.ndarray, byteorder: str) -> np.ndarray:
    """Converts 24-bit integers to GDAL's values: highest byte first, lowest if big-endian.

    Versions of imagecodecs differ in the order of the three bytes for one of the two byte orders.
    """
    from imagecodecs import packints_decode

    known = packints_decode(b'\1\2\3', np.dtype(byteorder + 'u4'), 24)
    highest_first = pixels if int(known[0]) == 0x010203 else pixels.byteswap()
    return highest_first if byteorder == '<' else highest_first.byteswap() >> 8


def _check_form(page: TiffPage) -> None:
    """Raises ValueError if the form of the samples is not supported."""
    if page.dtype is None or 0 in page.shaped:
        sizes = f'{page.imagewidth} x {page.imagelength} x {page.samplesperpixel}'
        raise _unsupported(f'{sizes} samples of {page.bitspersample} bits')
    if page.imagedepth != 1:
        raise _unsupported(f'volumes of {page.imagedepth} layers')
    if page.compression not in _COMPRESSIONS:
        raise _unsupported(f'compression {int(page.compression)}')
    if page.is_subsampled and (not is_jpeg(page) or page.planarconfig != 1):
        raise _unsupported(f'subsampled colors and {_COMPRESSIONS[page.compression]} compression')
    if page.bitspersample == 24 and page.dtype.kind == 'f' and page.predictor == 3:
        raise _unsupported('floating-point numbers of 24 bits and a predictor')
    if page.photometric == YCBCR and page.dtype != np.uint8:
        raise _unsupported(f'YCbCr colors of {page.bitspersample} bits')


def _unsupported(form: str) -> ValueError:
    """Returns the error for a form of TIFF that is not supported."""
    return ValueError(f'TIFF with {form} is not supported; convert it to plain TIFF or to .npy')


def _check_segments(page: TiffPage, file_size: int) -> None:
    """Raises ValueError if the file ends before the data of a page.

    Decoders would fill the missing part with gray.
    """
    if page.compression == _UNCOMPRESSED:
        # Uncompressed samples are read in full or not at all.
        return
    for offset, count in zip(page.dataoffsets, page.databytecounts, strict=False):
        if offset and count and offset + count > file_size:
            raise ValueError(f'the file ends early, after {file_size} of {offset + count} bytes')
