"""The supported image formats, and the one function that opens them with Pillow."""

from __future__ import annotations

from io import BytesIO

from PIL import Image, UnidentifiedImageError

from .heif import enable_heif, is_heif
from .orientation import orientation_of
from .plausible import check_opened, check_unopened

TIFF = (b'II*\0', b'MM\0*', b'II+\0', b'MM\0+')
"""First bytes of TIFF and BigTIFF files."""

NUMPY = b'\x93NUMPY'
"""First bytes of ``.npy`` files."""

PNG = b'\x89PNG\r\n\x1a\n'
"""First bytes of PNG files."""

# Pillow supports more formats. Those left out run programs (EPS), need the system or other packages
# to draw (WMF, BUFR, GRIB, HDF5, FPX, MIC), open a file within the file by rules of their own
# (IPTC, ICNS), or do not hold images to learn from.
FORMATS = (
    *('JPEG', 'PNG', 'WEBP', 'GIF', 'TIFF', 'BMP', 'AVIF', 'JPEG2000', 'PPM', 'HEIF'),
    *('DIB', 'ICO', 'CUR', 'PSD', 'SGI', 'SUN', 'DDS', 'QOI', 'PCX', 'DCX', 'MSP'),
    *('XBM', 'XPM', 'TGA'),
)
"""Pillow's names of the supported formats, in the order in which they are tried."""

# Pillow's operation for each orientation of Exif.

_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


def open_image(data: bytes, page: int | str | None = None) -> Image.Image:
    """Opens the content of a file with Pillow and loads it, turned by its Exif or XMP orientation.

    Args:
        data: content of the file.
        page: number of a page or frame, from 0; None is the first.

    Raises:
        ValueError: if there is no such page, the format is not one of :data:`FORMATS`, or the image
            is too large, in itself or for the length of the file.
    """
    Image.init()
    check_unopened(data)
    if is_heif(data):
        enable_heif()
    try:
        image = Image.open(BytesIO(data), formats=[name for name in FORMATS if name in Image.OPEN])
    except UnidentifiedImageError:
        if data.startswith((NUMPY, *TIFF)):
            reason = "is an array or an image of many bands, which color_type='unchanged' reads"
        else:
            reason = 'is in no known image format'
        raise ValueError(f'its content {reason}') from None
    check_opened(data, image)
    if page:
        _seek(image, page)
        check_opened(data, image)
    image.load()
    turn = _TURNS.get(orientation_of(image))
    return image if turn is None else image.transpose(turn)


def _seek(image: Image.Image, page: int | str) -> None:
    """Selects a page or frame, or raises ValueError if it does not exist."""
    frames = getattr(image, 'n_frames', 1)
    if not isinstance(page, int) or not 0 <= page < frames:
        raise ValueError(
            f'page={page!r} does not exist: the file holds {frames} images, numbered from 0'
        )
    image.seek(page)
