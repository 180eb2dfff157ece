"""From the samples of a TIFF page to colors of 8 bits, as the page's photometric interpretation
says.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from tifffile import TiffPage

WHITE_IS_ZERO, BLACK_IS_ZERO, RGB, PALETTE, MASK, INKS, YCBCR = range(7)
CIELAB = 8
"""Values of the tag PhotometricInterpretation."""

_COEFFICIENTS, _BLACK_WHITE, _INK_SET = 529, 532, 332
_CMYK = 1
_ASSOCIATED_ALPHA = 1


def colors_of_page(page: TiffPage, samples: np.ndarray, decoded_ycbcr: bool) -> np.ndarray:
    """Makes gray (H, W, 1) or RGB (H, W, 3) of 8 bits from the samples of a page (H, W, C).

    Gray is scaled so that the largest number of its bits is 255; colors of more than 8 bits keep
    their upper 8, as in Pillow and OpenCV. CMYK is brought to RGB without a color profile. Alpha is
    dropped; colors that were multiplied by it are divided by it.

    Args:
        page: with photometric interpretation, bits and color map.
        samples: from :func:`~mae_plugin.data.decoding.tiff.read_page`.
        decoded_ycbcr: whether YCbCr is RGB already.

    Raises:
        ValueError: if black and white of the samples are unknown, or the colors are not supported.
    """
    kind = page.photometric
    if kind in (WHITE_IS_ZERO, BLACK_IS_ZERO) and samples.shape[-1] > 2:
        raise ValueError(
            "its content is an image of many bands, which color_type='unchanged' reads"
        )
    if kind == PALETTE:
        return palette_colors(page, samples)[..., :3]
    samples, bits = _with_known_white(page, samples)
    if kind in (WHITE_IS_ZERO, BLACK_IS_ZERO, MASK):
        gray = _eight_bits(_without_alpha(page, samples, 1, bits), bits, rounded=True)
        return 255 - gray if kind == WHITE_IS_ZERO else gray
    if kind == YCBCR and not decoded_ycbcr:
        return ycbcr_colors(page, samples)[..., :3]
    if kind in (RGB, YCBCR) and samples.shape[-1] >= 3:
        return _eight_bits(_without_alpha(page, samples, 3, bits), bits, rounded=False)
    if (
        kind == INKS
        and samples.shape[-1] >= 4
        and page.tags.valueof(_INK_SET, default=_CMYK) == _CMYK
    ):
        inks = 255 - _eight_bits(
            _without_alpha(page, samples, 4, bits), bits, rounded=False
        ).astype(np.uint16)
        return ((inks[..., :3] * inks[..., 3:] + 127) // 255).astype(np.uint8)
    raise ValueError(
        f'TIFF with photometric interpretation {int(kind)} and {samples.shape[-1]} samples per '
        'pixel has no known '
        "colors; color_type='unchanged' keeps its samples"
    )


def palette_colors(page: TiffPage, indices: np.ndarray) -> np.ndarray:
    """Looks up indices (H, W, 1 + extra) in the color map of a page: RGB of 8 bits and the extra
    samples.

    Raises:
        ValueError: if the page has no color map, or one with fewer colors than the pixels name.
    """
    table = page.colormap
    index = indices[..., 0]
    if table is None or int(index.max()) >= table.shape[1]:
        raise ValueError('the TIFF palette has fewer colors than its pixels name')
    # Some writers put values of 8 bits into the map of 16.
    table = (table >> 8 if table.max() > 255 else table).astype(np.uint8)
    colors = table.T[index]
    return np.concatenate([colors, indices[..., 1:]], axis=-1) if indices.shape[-1] > 1 else colors


def ycbcr_colors(page: TiffPage, samples: np.ndarray) -> np.ndarray:
    """Brings YCbCr of 8 bits (H, W, 3 + extra) to RGB, by the page's coefficients and reference
    black and white.
    """
    red, green, blue = _rationals(page, _COEFFICIENTS, (0.299, 0.587, 0.114))
    black_white = np.reshape(_rationals(page, _BLACK_WHITE, (0, 255, 128, 255, 128, 255)), (3, 2))
    black, white = black_white.T
    luma, cb, cr = np.moveaxis(
        (samples[..., :3] - black) / np.maximum(white - black, 1) * (255, 127, 127), -1, 0
    )
    r = luma + cr * (2 - 2 * red)
    b = luma + cb * (2 - 2 * blue)
    g = (luma - red * r - blue * b) / green
    rgb = np.stack([r, g, b], axis=-1).round().clip(0, 255).astype(np.uint8)
    return np.concatenate([rgb, samples[..., 3:]], axis=-1)


def _rationals(page: TiffPage, tag: int, default: tuple[float, ...]) -> list[float]:
    values = page.tags.valueof(tag)
    if values is None:
        return list(default)
    if len(values) == len(default):
        return [float(value) for value in values]
    return [n / d if d else 0.0 for n, d in zip(values[::2], values[1::2], strict=True)]


def _with_known_white(page: TiffPage, samples: np.ndarray) -> tuple[np.ndarray, int]:
    """The samples as unsigned integers of at most 16 bits, and their bits."""
    if samples.dtype.kind == 'u' and samples.itemsize <= 2:
        return samples, page.bitspersample
    if samples.dtype.kind != 'f' and samples.min() >= 0 and samples.max() <= 255:
        return samples.astype(np.uint8), 8
    is_float = samples.dtype.kind == 'f'
    numbers = (
        'floating-point numbers'
        if is_float
        else f'integers of {page.bitspersample} bits beyond 0 to 255'
    )
    raise ValueError(
        f"its pixels are {numbers}, whose black and white are unknown; color_type='unchanged' "
        'keeps them as they are'
    )


def _without_alpha(page: TiffPage, samples: np.ndarray, colors: int, bits: int) -> np.ndarray:
    """The first samples of each pixel, divided by alpha if they were multiplied by it."""
    extra = page.extrasamples[:1] if samples.shape[-1] > colors else ()
    if not extra or extra[0] != _ASSOCIATED_ALPHA:
        return samples[..., :colors]
    alpha, white = samples[..., colors : colors + 1].astype(np.uint32), 2**bits - 1
    divided = samples[..., :colors].astype(np.uint32) * white // np.maximum(alpha, 1)
    # Where nothing is seen the color is black, as in Pillow.
    return np.where(alpha == 0, 0, divided.clip(0, white)).astype(samples.dtype)


def _eight_bits(samples: np.ndarray, bits: int, rounded: bool) -> np.ndarray:
    if bits == 8:
        return samples.astype(np.uint8)
    if bits < 8 or rounded:
        return (samples * (255 / (2**bits - 1))).round().clip(0, 255).astype(np.uint8)
    return (samples >> (bits - 8)).astype(np.uint8)
