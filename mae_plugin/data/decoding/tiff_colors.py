"""Converts the samples of a TIFF page to 8-bit colors by its photometric interpretation."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from tifffile import TiffPage

WHITE_IS_ZERO, BLACK_IS_ZERO, RGB, PALETTE, MASK, INKS, YCBCR = range(7)
CIELAB = 8
"""Values of the tag PhotometricInterpretation."""

# Values of TIFF tags.
_COEFFICIENTS, _BLACK_WHITE, _INK_SET = 529, 532, 332
_CMYK = 1
_ASSOCIATED_ALPHA = 1


def colors_of_page(page: TiffPage, samples: np.ndarray, decoded_ycbcr: bool) -> np.ndarray:
    """Converts the samples (H, W, C) of a page to gray (H, W, 1) or RGB (H, W, 3) of 8 bits.

    Gray is scaled so that the largest number of its bits is 255. Colors of more than 8 bits keep
    their upper 8, as in Pillow and OpenCV. CMYK is converted to RGB without a color profile. Alpha
    is dropped, and colors that were multiplied by it are divided by it.

    Args:
        page: page with photometric interpretation, bits and color map.
        samples: (H, W, C) from :func:`~mae_plugin.data.decoding.tiff_pages.read_page`.
        decoded_ycbcr: whether YCbCr is converted to RGB already.

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
    ink_set = page.tags.valueof(_INK_SET, default=_CMYK)
    if kind == INKS and samples.shape[-1] >= 4 and ink_set == _CMYK:
        cmyk = _eight_bits(_without_alpha(page, samples, 4, bits), bits, rounded=False)
        remaining = 255 - cmyk.astype(np.uint16)  # (H, W, 4), the light that each ink passes
        return ((remaining[..., :3] * remaining[..., 3:] + 127) // 255).astype(np.uint8)
    raise ValueError(
        f'TIFF with photometric interpretation {int(kind)} and {samples.shape[-1]} samples per '
        "pixel has no known colors; color_type='unchanged' keeps its samples"
    )


def palette_colors(page: TiffPage, indices: np.ndarray) -> np.ndarray:
    """Replaces indices (H, W, 1 + extra) by the colors of a page: 8-bit RGB and the extra samples.

    Raises:
        ValueError: if the page has no color map, or one with too few colors for the indices.
    """
    table = page.colormap  # (3, colors)
    index = indices[..., 0]
    if table is None or int(index.max()) >= table.shape[1]:
        raise ValueError('the TIFF palette has fewer colors than its pixels name')
    # The map has 16 bits, but some programs write values of 8 bits into it.
    if table.max() > 255:
        table = table >> 8
    colors = table.astype(np.uint8).T[index]  # (H, W, 3)
    if indices.shape[-1] == 1:
        return colors
    return np.concatenate([colors, indices[..., 1:]], axis=-1)


def ycbcr_colors(page: TiffPage, samples: np.ndarray) -> np.ndarray:
    """Converts 8-bit YCbCr (H, W, 3 + extra) to RGB.

    Uses the coefficients and the reference black and white of the page.
    """
    red, green, blue = _rationals(page, _COEFFICIENTS, (0.299, 0.587, 0.114))
    black_white = np.reshape(_rationals(page, _BLACK_WHITE, (0, 255, 128, 255, 128, 255)), (3, 2))
    black, white = black_white.T
    scaled = (samples[..., :3] - black) / np.maximum(white - black, 1) * (255, 127, 127)
    luma, cb, cr = np.moveaxis(scaled, -1, 0)  # (H, W) each
    r = luma + cr * (2 - 2 * red)
    b = luma + cb * (2 - 2 * blue)
    g = (luma - red * r - blue * b) / green
    rgb = np.stack([r, g, b], axis=-1).round().clip(0, 255).astype(np.uint8)
    return np.concatenate([rgb, samples[..., 3:]], axis=-1)


def _rationals(page: TiffPage, tag: int, default: tuple[float, ...]) -> list[float]:
    """Returns the rational numbers of a tag, or the default if the page lacks it."""
    values = page.tags.valueof(tag)
    if values is None:
        return list(default)
    if len(values) == len(default):
        return [float(value) for value in values]
    return [n / d if d else 0.0 for n, d in zip(values[::2], values[1::2], strict=True)]


def _with_known_white(page: TiffPage, samples: np.ndarray) -> tuple[np.ndarray, int]:
    """Returns the samples as unsigned integers of at most 16 bits, and the number of bits."""
    if samples.dtype.kind == 'u' and samples.itemsize <= 2:
        return samples, page.bitspersample
    if samples.dtype.kind != 'f' and samples.min() >= 0 and samples.max() <= 255:
        return samples.astype(np.uint8), 8
    if samples.dtype.kind == 'f':
        numbers = 'floating-point numbers'
    else:
        numbers = f'integers of {page.bitspersample} bits beyond 0 to 255'
    raise ValueError(
        f"its pixels are {numbers}, whose black and white are unknown; color_type='unchanged' "
        'keeps them as they are'
    )


def _without_alpha(page: TiffPage, samples: np.ndarray, colors: int, bits: int) -> np.ndarray:
    """Returns the first samples of each pixel, divided by alpha if they were multiplied by it."""
    extra = page.extrasamples[:1] if samples.shape[-1] > colors else ()
    if not extra or extra[0] != _ASSOCIATED_ALPHA:
        return samples[..., :colors]
    alpha, white = samples[..., colors : colors + 1].astype(np.uint32), 2**bits - 1
    divided = samples[..., :colors].astype(np.uint32) * white // np.maximum(alpha, 1)
    # Fully transparent pixels are black, as in Pillow.
    return np.where(alpha == 0, 0, divided.clip(0, white)).astype(samples.dtype)


def _eight_bits(samples: np.ndarray, bits: int, rounded: bool) -> np.ndarray:
    """Scales samples to 8 bits, with rounding, or keeps the upper 8 bits."""
    if bits == 8:
        return samples.astype(np.uint8)
    if bits < 8 or rounded:
        return (samples * (255 / (2**bits - 1))).round().clip(0, 255).astype(np.uint8)
    return (samples >> (bits - 8)).astype(np.uint8)
