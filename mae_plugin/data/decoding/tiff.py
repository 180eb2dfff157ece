"""TIFF files: selects the pages that are the image, and decodes them to bands or colors."""

from __future__ import annotations

import logging
from io import BytesIO
from typing import TYPE_CHECKING, Literal

import numpy as np
from PIL import Image

from .limits import check_size
from .orientation import upright
from .tiff_colors import (
    CIELAB,
    PALETTE,
    WHITE_IS_ZERO,
    YCBCR,
    colors_of_page,
    palette_colors,
    ycbcr_colors,
)
from .tiff_pages import (
    CCITT,
    find_page,
    is_jpeg,
    needs_pillow,
    orientation_of_page,
    pillow_page,
    read_page,
)

if TYPE_CHECKING:
    from tifffile import TiffFile, TiffPage

Page = int | Literal['all'] | None
"""Page that is the image: its number from 0, ``'all'`` for pages that are bands, None for the only
one.
"""


def open_tiff(data: bytes) -> TiffFile:
    """Opens the content of a TIFF file.

    Raises:
        ValueError: if it has no page.
    """
    # Importing tifffile is slow, and most datasets hold no TIFF.
    from tifffile import TiffFile

    # Warnings about tags that do not concern the pixels would appear once per image and epoch.
    logging.getLogger('tifffile').setLevel(logging.CRITICAL)
    file = TiffFile(BytesIO(data))
    if not len(file.pages):
        raise ValueError('the TIFF file has no page')
    return file


def read_tiff(data: bytes, page: Page = None) -> np.ndarray:
    """Decodes a TIFF file to its stored samples (H, W, C), turned by its orientation.

    The values equal GDAL's, one band per sample. Packed samples are not scaled (1 bit gives 0 and
    1, 12 bits 0 to 4095 in uint16). Black and white are not exchanged. Alpha and other extra
    samples are kept. Palettes become RGB of 8 bits, YCbCr becomes RGB, and floating-point numbers
    of fewer than 32 bits become float32.

    Args:
        data: content of the file.
        page: number of a page, counted from 0 over all pages of the file; ``'all'`` takes the pages
            as bands, in order; None takes the only page that is not an overview or a mask, or the
            pages that the file's metadata (OME, ImageJ, tifffile) mark as channels.

    Raises:
        ValueError: if the form of the samples is not supported, several pages are not marked as
            bands, there is no such page, the file ends early, or the image is too large
            (:func:`~mae_plugin.data.decoding.limits.check_size`).
    """
    with open_tiff(data) as file:
        if page is not None and page != 'all':
            return _bands(find_page(file, page), data)
        images = [one for one in file.pages if not (one.is_reduced or one.is_mask)]
        if not images:
            images = [file.pages[0]]
        if page is None and len(images) == 1 and not _has_hidden_pages(file):
            return _bands(file.pages[0], data)
        if page is None and not _are_channels(file, len(images)):
            raise ValueError(_unmarked_pages(file, images))
        return _all_bands(images, data)


def read_tiff_colors(data: bytes, page: Page = None) -> Image.Image:
    """Decodes a page to a Pillow image of mode ``'L'`` or ``'RGB'``, turned by its orientation.

    Args:
        data: content of the file.
        page: number of the page, counted from 0; None is the first.

    Raises:
        ValueError: if there is no such page, it is too large, ends early, or has no known colors.
    """
    with open_tiff(data) as file:
        found = find_page(file, page)
        if found.compression in CCITT or found.photometric == CIELAB or needs_pillow(found):
            image = pillow_page(found, data)
            return image.convert('L' if image.mode == '1' else 'RGB')
        samples = read_page(found, len(data))  # (H, W, C)
        pixels = colors_of_page(found, samples, is_jpeg(found))  # (H, W, 1 or 3)
        pixels = upright(pixels, orientation_of_page(found))
    if pixels.shape[-1] == 1:
        pixels = pixels[..., 0]
    return Image.fromarray(np.ascontiguousarray(pixels))


def _bands(page: TiffPage, data: bytes) -> np.ndarray:
    """Decodes one page to its bands (H, W, C), turned by its orientation."""
    if page.compression in CCITT and page.samplesperpixel == 1:
        return _read_ccitt(page, data)
    if needs_pillow(page):
        return np.asarray(pillow_page(page, data).convert('RGB'))
    pixels = read_page(page, len(data))
    if page.photometric == PALETTE:
        pixels = palette_colors(page, pixels)
    elif page.photometric == YCBCR and not is_jpeg(page):
        pixels = ycbcr_colors(page, pixels)
    return upright(pixels, orientation_of_page(page))


def _all_bands(pages: list[TiffPage], data: bytes) -> np.ndarray:
    """Decodes pages of one size to (H, W, C), the bands of one page after those of the other."""
    first = pages[0]
    if any((page.shape, page.dtype) != (first.shape, first.dtype) for page in pages):
        raise ValueError(
            "page='all' needs pages of one size and number type; page=0 takes the first alone"
        )
    bands = first.samplesperpixel * len(pages)
    check_size(first.imagelength, first.imagewidth, bands, first.dtype.itemsize)
    return np.concatenate([_bands(page, data) for page in pages], axis=-1)


def _read_ccitt(page: TiffPage, data: bytes) -> np.ndarray:
    """Decodes a CCITT page to its bits (H, W, 1), or to colors if it has a palette.

    Pillow decodes it, because imagecodecs decodes some valid CCITT files wrongly.
    """
    image = pillow_page(page, data)
    if page.photometric == PALETTE:
        return np.asarray(image.convert('RGB'))
    bits = np.asarray(image.convert('1')).astype(np.uint8)[..., None]
    return 1 - bits if page.photometric == WHITE_IS_ZERO else bits


def _has_hidden_pages(file: TiffFile) -> bool:
    """Returns whether images without a directory follow the only page, as ImageJ writes them."""
    return (file.is_imagej or file.is_shaped) and file.series[0].size > file.pages[0].size


def _unmarked_pages(file: TiffFile, images: list[TiffPage]) -> str:
    """Returns the error for a file whose pages are not marked as bands."""
    number = max(len(images), file.series[0].size // max(1, file.pages[0].size))
    hint = ''
    if file.is_shaped:
        hint = "; tifffile.imwrite needs planarconfig='contig' for an array (H, W, C)"
    return (
        f'the TIFF file has {number} images and does not mark them as bands; page=0 takes the '
        f"first, page='all' takes each as a band{hint}"
    )


def _are_channels(file: TiffFile, images: int) -> bool:
    """Returns whether metadata mark the images of the file, one per page, as channels of one."""
    if not (file.is_ome or file.is_imagej or file.is_shaped) or len(file.series) != 1:
        return False
    series = file.series[0]
    axes = {axis for axis, length in zip(series.axes, series.shape, strict=True) if length > 1}
    return axes <= set('CYXS') and series.size == images * file.pages[0].size
