"""The orientation noted in Exif or XMP, and pixels turned by it."""

from __future__ import annotations

import re
from collections.abc import Mapping

import numpy as np
from PIL import Image

# Tag of the orientation in Exif and TIFF.
_TAG = 0x0112
_TRANSPOSED, _MIRRORED, _UPSIDE_DOWN = (5, 6, 7, 8), (2, 3, 6, 7), (3, 4, 7, 8)
_XMP = re.compile(rb'tiff:Orientation(?:="|>)([1-8])')


def orientation_of(image: Image.Image) -> int:
    """Returns the orientation (1 to 8) of a loaded Pillow image, 1 if its metadata are damaged."""
    try:
        return _valid(image.getexif())
    # Pillow raises exceptions of many types for damaged Exif, and the pixels are intact.
    except Exception:
        return 1


def parse_orientation(exif: bytes, xmp: bytes = b'') -> int:
    """Returns the orientation (1 to 8) of Exif, else of XMP, and 1 if both are absent or damaged.

    Args:
        exif: a TIFF structure, with or without ``Exif\\0\\0`` before it.
        xmp: an XMP packet.
    """
    try:
        tags = Image.Exif()
        tags.load(exif)
        if _TAG in tags:
            return _valid(tags)
    except Exception:
        pass
    found = _XMP.search(xmp)
    return int(found[1]) if found else 1


def is_transposed(orientation: int) -> bool:
    """Returns whether the orientation exchanges height and width."""
    return orientation in _TRANSPOSED


def upright(pixels: np.ndarray, orientation: int) -> np.ndarray:
    """Turns and mirrors (H, W, ...) by an orientation; the result is a view."""
    if orientation in _TRANSPOSED:
        pixels = pixels.swapaxes(0, 1)
    if orientation in _MIRRORED:
        pixels = pixels[:, ::-1]
    if orientation in _UPSIDE_DOWN:
        pixels = pixels[::-1]
    return pixels


def _valid(tags: Mapping) -> int:
    """Returns the orientation in Exif tags, 1 if there is none or it is out of range."""
    value = tags.get(_TAG, 1)
    return value if value in range(1, 9) else 1
