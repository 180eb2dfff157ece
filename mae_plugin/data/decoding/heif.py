"""HEIC and HEIF, the photographs of phones, read by pillow-heif if that is installed."""

from __future__ import annotations

from io import BytesIO

import numpy as np
from PIL import Image

from .limits import check_size

# Brands in the first box of a file, without those of AVIF, which Pillow reads by itself.
_BRANDS = (b'heic', b'heix', b'heim', b'heis', b'hevc', b'hevx', b'hevm', b'hevs', b'mif1', b'msf1')


def is_heif(data: bytes) -> bool:
    """Returns whether the content of a file begins like HEIC or HEIF, and not like AVIF."""
    return data[4:8] == b'ftyp' and data[8:12] in _BRANDS and b'avif' not in data[12:64]


def enable_heif() -> None:
    """Registers pillow-heif in Pillow, so that Pillow opens HEIC and HEIF.

    Raises:
        ValueError: if pillow-heif is not installed.
    """
    try:
        import pillow_heif
    except ImportError:
        raise ValueError(
            'its content is HEIC or HEIF, which needs another package: pip install pillow-heif '
            "(or 'mae_plugin[heif]')"
        ) from None
    if 'HEIF' not in Image.OPEN:
        pillow_heif.register_heif_opener()


def read_deep_heif(data: bytes, page: int | str | None = None) -> np.ndarray | None:
    """Decodes an image of more than 8 bits to (H, W, C) uint16, scaled to 16 bits.

    Returns:
        The pixels, or None for an image of 8 bits.

    Raises:
        ValueError: if pillow-heif is not installed, there is no such page, or the image is too
            large.
    """
    enable_heif()
    import pillow_heif

    file = pillow_heif.open_heif(BytesIO(data), convert_hdr_to_8bit=False)
    if page is not None and not (isinstance(page, int) and 0 <= page < len(file)):
        raise ValueError(
            f'page={page!r} does not exist: the file holds {len(file)} images, numbered from 0'
        )
    image = file[file.primary_index if page is None else page]
    if image.info.get('bit_depth', 8) <= 8:
        return None
    width, height = image.size
    check_size(height, width, 4, 2)
    return np.asarray(image)
