"""TIFF files: which page is the image, and its samples as they are stored."""

from __future__ import annotations

import logging
from io import BytesIO
from typing import TYPE_CHECKING, Literal

import numpy as np
from PIL import Image

from .limits import check_size
from .orientation import upright
from .plausible import check_opened
from .tiff_colors import (
    CIELAB,
    PALETTE,
    WHITE_IS_ZERO,
    YCBCR,
    colors_of_page,
    palette_colors,
    ycbcr_colors,
)

if TYPE_CHECKING:
    from tifffile import TiffFile, TiffPage

Page = int | Literal['all'] | None
"""Which page of a file is the image: its number from 0, ``'all'`` for pages that are bands, None
for the only one.
"""

_ORIENTATION = 274
_CCITT = (2, 3, 4)
_OLD_JPEG = 6
# Decoders of JPEG undo subsampling, and bring YCbCr to RGB.
_JPEG = (7, 34892, 33007)
# What tifffile and imagecodecs read, without the raw formats of cameras and microscopes.
_COMPRESSIONS = {
    **{
        1: 'no',
        2: 'CCITT RLE',
        3: 'CCITT T.4',
        4: 'CCITT T.6',
        5: 'LZW',
        7: 'JPEG',
        8: 'deflate',
        32773: 'PackBits',
    },
    **{
        32946: 'deflate',
        33003: 'JPEG 2000',
        33004: 'JPEG 2000',
        33005: 'JPEG 2000',
        33007: 'JPEG',
        34712: 'JPEG 2000',
    },
    **{
        34887: 'LERC',
        34892: 'JPEG',
        34925: 'LZMA',
        34926: 'Zstandard',
        34927: 'WebP',
        34933: 'PNG',
        34934: 'JPEG XR',
    },
    **{50000: 'Zstandard', 50001: 'WebP', 50002: 'JPEG XL', 52546: 'JPEG XL'},
}


class UnreadTiffError(ValueError):
    """Raised for a page whose form tifffile does not read; Pillow may."""


def open_tiff(data: bytes) -> TiffFile:
    """Opens the content of a TIFF file.

    Raises:
        ValueError: if it has no page.
    """
    # Takes a moment, and most data sets hold no TIFF.
    from tifffile import TiffFile

    # Remarks on tags that do not concern the pixels would come once per image and epoch.
    logging.getLogger('tifffile').setLevel(logging.CRITICAL)
    file = TiffFile(BytesIO(data))
    if not len(file.pages):
        raise ValueError('the TIFF file has no page')
    return file


def read_tiff(data: bytes, page: Page = None) -> np.ndarray:
    """Decodes a TIFF file to its samples (H, W, C) as they are stored, turned as its orientation
    says.

    Values are those that GDAL gives, one band per sample: packed samples are not scaled (1 bit
    gives 0 and 1, 12 bits 0 to 4095 in uint16), black is not exchanged with white, alpha and other
    extra samples are kept. Palettes become RGB of 8 bits, YCbCr becomes RGB, floating-point numbers
    of fewer than 32 bits become float32.

    Args:
        data: content of the file.
        page: number of a page, counted from 0 over all pages of the file; ``'all'`` takes the pages
            as bands, one after the other; None, the only page that is not an overview or a mask, or
            the pages that the file's metadata (OME, ImageJ, tifffile) calls channels.

    Raises:
        UnreadTiffError: if the form of the samples is not supported.
        ValueError: if several pages are not said to be bands, if there is no such page, if the file
            ends early, or if the image is too large
            (:func:`~mae_plugin.data.decoding.limits.check_size`).
    """
    with open_tiff(data) as file:
        if page is not None and page != 'all':
            return _bands(find_page(file, page), data)
        images = [one for one in file.pages if not (one.is_reduced or one.is_mask)] or [
            file.pages[0]
        ]
        if page is None and len(images) == 1 and not _is_open_stack(file):
            return _bands(file.pages[0], data)
        if page is None and not _are_channels(file, len(images)):
            raise ValueError(_stack_of(file, images))
        return _all_bands(images, data)


def read_tiff_colors(data: bytes, page: int | None = None) -> Image.Image:
    """Decodes a page of a TIFF file to a Pillow image of mode ``'L'`` or ``'RGB'``, turned as its
    orientation says.

    Args:
        data: content of the file.
        page: number of the page, counted from 0; None is the first.

    Raises:
        ValueError: if there is no such page, if it is too large or ends early, or if it has no
            known colors.
    """
    with open_tiff(data) as file:
        found = find_page(file, page)
        if found.compression in _CCITT or found.photometric == CIELAB or _is_left_to_pillow(found):
            image = pillow_page(found, data)
            return image.convert('L' if image.mode == '1' else 'RGB')
        pixels = colors_of_page(found, read_page(found, len(data)), is_jpeg(found))
        pixels = upright(pixels, orientation_of_page(found))
    return Image.fromarray(
        np.ascontiguousarray(pixels[..., 0] if pixels.shape[-1] == 1 else pixels)
    )


def find_page(file: TiffFile, page: int | None) -> TiffPage:
    """Finds the page of a number, or the first for None.

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
    """Decodes one page to (H, W, C): samples as stored, palettes as indices, neither turned nor
    scaled.

    Raises:
        UnreadTiffError: if the form of the samples is not supported.
        ValueError: if the image is too large, or the file ends before it does.
    """
    _check_form(page)
    check_size(page.imagelength, page.imagewidth, page.samplesperpixel, page.dtype.itemsize)
    if page.is_tiled:
        check_size(page.tilelength, page.tilewidth, page.samplesperpixel, page.dtype.itemsize)
    _check_segments(page, file_size)
    if page.compression == 1:
        page.predictor = 1  # libtiff, too, knows predictors of compressed samples alone
    # Separate planes, depth, height, width, samples of a pixel. Loading has worker processes of its
    # own.
    pixels = page.asarray(squeeze=False, maxworkers=1)[:, 0]
    pixels = pixels[0] if pixels.shape[0] == 1 else pixels[..., 0].transpose(1, 2, 0)
    if pixels.dtype.kind == 'u' and page.bitspersample == 24:
        pixels = _three_bytes(pixels.astype(np.uint32), page.parent.byteorder)
    small = {np.dtype(bool): np.uint8, np.dtype(np.float16): np.float32}
    return pixels.astype(small.get(pixels.dtype.newbyteorder('='), pixels.dtype), copy=False)


def pillow_page(page: TiffPage, data: bytes) -> Image.Image:
    """Opens a page with Pillow, which turns it as its orientation says."""
    image = Image.open(BytesIO(data), formats=['TIFF'])
    image.seek(page.index)
    check_opened(data, image)
    image.load()
    return image


def orientation_of_page(page: TiffPage) -> int:
    """Returns the orientation (1 to 8) of a page, 1 if it has none."""
    return page.tags.valueof(_ORIENTATION, default=1)


def is_jpeg(page: TiffPage) -> bool:
    """Returns whether the page is compressed as JPEG, whose decoder brings YCbCr to RGB."""
    return page.compression in _JPEG


def _bands(page: TiffPage, data: bytes) -> np.ndarray:
    if page.compression in _CCITT and page.samplesperpixel == 1:
        return _read_ccitt(page, data)
    if _is_left_to_pillow(page):
        return np.asarray(pillow_page(page, data).convert('RGB'))
    pixels = read_page(page, len(data))
    if page.photometric == PALETTE:
        pixels = palette_colors(page, pixels)
    elif page.photometric == YCBCR and not is_jpeg(page):
        pixels = ycbcr_colors(page, pixels)
    return upright(pixels, orientation_of_page(page))


def _all_bands(pages: list[TiffPage], data: bytes) -> np.ndarray:
    first = pages[0]
    if any((page.shape, page.dtype) != (first.shape, first.dtype) for page in pages):
        raise ValueError(
            "page='all' needs pages of one size and number type; page=0 takes the first alone"
        )
    check_size(
        first.imagelength,
        first.imagewidth,
        first.samplesperpixel * len(pages),
        first.dtype.itemsize,
    )
    return np.concatenate([_bands(page, data) for page in pages], axis=-1)


def _read_ccitt(page: TiffPage, data: bytes) -> np.ndarray:
    """Bits (H, W, 1) as stored, or colors, from Pillow: imagecodecs gets some whole files of CCITT
    wrong.
    """
    image = pillow_page(page, data)
    if page.photometric == PALETTE:
        return np.asarray(image.convert('RGB'))
    bits = np.asarray(image.convert('1')).astype(np.uint8)[..., None]
    return 1 - bits if page.photometric == WHITE_IS_ZERO else bits


def _is_left_to_pillow(page: TiffPage) -> bool:
    """Whether the page holds 8-bit colors in a form that Pillow reads, by libtiff, and tifffile
    does not.
    """
    subsampled = (
        page.photometric == YCBCR
        and page.is_subsampled
        and page.compression != 1
        and not is_jpeg(page)
    )
    return (
        page.bitspersample == 8
        and page.planarconfig == 1
        and (page.compression == _OLD_JPEG or subsampled)
    )


def _three_bytes(pixels: np.ndarray, byteorder: str) -> np.ndarray:
    """Brings integers of 24 bits to what GDAL reads: the highest byte first, the lowest in
    big-endian files.

    Versions of imagecodecs differ in where the three bytes of one of the two orders come out.
    """
    from imagecodecs import packints_decode

    known = packints_decode(b'\1\2\3', np.dtype(byteorder + 'u4'), 24)
    highest_first = pixels if int(known[0]) == 0x010203 else pixels.byteswap()
    return highest_first if byteorder == '<' else highest_first.byteswap() >> 8


def _is_open_stack(file: TiffFile) -> bool:
    """Whether the file's only page is followed by others that have no directory, as ImageJ and
    tifffile write them.
    """
    return (file.is_imagej or file.is_shaped) and file.series[0].size > file.pages[0].size


def _stack_of(file: TiffFile, images: list[TiffPage]) -> str:
    number = max(len(images), file.series[0].size // max(1, file.pages[0].size))
    hint = (
        "; tifffile.imwrite needs planarconfig='contig' for an array (H, W, C)"
        if file.is_shaped
        else ''
    )
    return (
        f'the TIFF file has {number} images and does not say that they are bands; page=0 takes '
        'the first, '
        f"page='all' takes each as a band{hint}"
    )


def _are_channels(file: TiffFile, images: int) -> bool:
    """Whether metadata says that the images of the file, each a page of its own, are the channels
    of one.
    """
    if not (file.is_ome or file.is_imagej or file.is_shaped) or len(file.series) != 1:
        return False
    series = file.series[0]
    axes = {axis for axis, length in zip(series.axes, series.shape, strict=True) if length > 1}
    return axes <= set('CYXS') and series.size == images * file.pages[0].size


def _unread(form: str) -> UnreadTiffError:
    return UnreadTiffError(
        f'TIFF with {form} is not supported; convert it to plain TIFF or to .npy'
    )


def _check_form(page: TiffPage) -> None:
    if page.dtype is None or 0 in page.shaped:
        sizes = f'{page.imagewidth} x {page.imagelength} x {page.samplesperpixel}'
        raise _unread(f'{sizes} samples of {page.bitspersample} bits')
    if page.imagedepth != 1:
        raise _unread(f'volumes of {page.imagedepth} layers')
    if page.compression not in _COMPRESSIONS:
        raise _unread(f'compression {int(page.compression)}')
    if page.is_subsampled and (not is_jpeg(page) or page.planarconfig != 1):
        raise _unread(f'subsampled colors and {_COMPRESSIONS[page.compression]} compression')
    if page.bitspersample == 24 and page.dtype.kind == 'f' and page.predictor == 3:
        raise _unread('floating-point numbers of 24 bits and a predictor')
    if page.photometric == YCBCR and page.dtype != np.uint8:
        raise _unread(f'YCbCr colors of {page.bitspersample} bits')


def _check_segments(page: TiffPage, file_size: int) -> None:
    """Raises a ValueError if the file ends before the data of a page does: decoders would fill in
    gray.
    """
    if page.compression == 1:
        return  # read in full or not at all
    for offset, count in zip(page.dataoffsets, page.databytecounts, strict=False):
        if offset and count and offset + count > file_size:
            raise ValueError(f'the file ends early, after {file_size} of {offset + count} bytes')
