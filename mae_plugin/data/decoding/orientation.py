"""Which way up an image is: the orientation that Exif or XMP notes, and pixels turned by it."""

from __future__ import annotations

import re
from collections.abc import Mapping

import numpy as np
from PIL import Image

_TAG = 0x0112  # of Exif and TIFF
_TRANSPOSED, _MIRRORED, _UPSIDE_DOWN = (5, 6, 7, 8), (2, 3, 6, 7), (3, 4, 7, 8)
_XMP = re.compile(rb'tiff:Orientation(?:="|>)([1-8])')


def orientation_of(image: Image.Image) -> int:
    """Returns the orientation (1 to 8) that the metadata of a loaded Pillow image notes, 1 if they
    are broken.
    """
    try:
        return _known(image.getexif())
    # Pillow raises what it likes on broken Exif, and the pixels are whole all the same.
    except Exception:
        return 1


def parse_orientation(exif: bytes, xmp: bytes = b'') -> int:
    """Returns the orientation (1 to 8) that Exif notes, else XMP, and 1 if neither does or both are
    broken.

    Args:
        exif: a TIFF structure, with or without ``Exif\\0\\0`` before it.
        xmp: an XMP packet.
    """
    try:
        tags = Image.Exif()
        tags.load(exif)
        if _TAG in tags:
            return _known(tags)
    except Exception:
        pass
    found = _XMP.search(xmp)
    return int(found[1]) if found else 1


def is_transposed(orientation: int) -> bool:
    """Returns whether height and width change places."""
    return orientation in _TRANSPOSED


def upright(pixels: np.ndarray, orientation: int) -> np.ndarray:
    """Turns and mirrors (H, W, ...) as the orientation asks for; a view where none asks for a
    copy.
    """
    if orientation in _TRANSPOSED:
        pixels = pixels.swapaxes(0, 1)
    if orientation in _MIRRORED:
        pixels = pixels[:, ::-1]
    if orientation in _UPSIDE_DOWN:
        pixels = pixels[::-1]
    return pixels


def _known(tags: Mapping) -> int:
    value = tags.get(_TAG, 1)
    return value if value in range(1, 9) else 1
