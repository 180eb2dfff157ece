"""Which image formats are opened, and the one place that calls Pillow to open them."""

from __future__ import annotations

from io import BytesIO

from PIL import Image, UnidentifiedImageError

from .heif import enable_heif, is_heif
from .orientation import orientation_of
from .plausible import check_opened, check_unopened

TIFF = (b'II*\0', b'MM\0*', b'II+\0', b'MM\0+')
"""How TIFF and BigTIFF files start."""

NUMPY = b'\x93NUMPY'
"""How ``.npy`` files start."""

PNG = b'\x89PNG\r\n\x1a\n'
"""How PNG files start."""

# Pillow knows more. What is left out runs programs (EPS), asks the system or other packages to draw
# (WMF, BUFR, GRIB, HDF5, FPX, MIC), opens a file within the file by its own rules (IPTC, ICNS), or
# is no format of images to learn from.
FORMATS = (
    *('JPEG', 'PNG', 'WEBP', 'GIF', 'TIFF', 'BMP', 'AVIF', 'JPEG2000', 'PPM', 'HEIF'),
    *(
        'DIB',
        'ICO',
        'CUR',
        'PSD',
        'SGI',
        'SUN',
        'DDS',
        'QOI',
        'PCX',
        'DCX',
        'MSP',
        'XBM',
        'XPM',
        'TGA',
    ),
)
"""Pillow's names of the formats that are opened, in the order in which they are tried."""

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
    """Opens the content of a file with Pillow and loads it, turned as Exif or XMP says.

    Args:
        data: content of the file.
        page: number of a page or frame, from 0; None is the first.

    Raises:
        ValueError: if there is no such page, if its format is not one of :data:`FORMATS`, or the
            image is too large, or too large for the length of the file.
    """
    Image.init()
    check_unopened(data)
    if is_heif(data):
        enable_heif()
    try:
        image = Image.open(BytesIO(data), formats=[name for name in FORMATS if name in Image.OPEN])
    except UnidentifiedImageError:
        bands = data.startswith((NUMPY, *TIFF))
        hint = "is an array or an image of many bands, which color_type='unchanged' reads"
        raise ValueError(
            f'its content {hint if bands else "is in no known image format"}'
        ) from None
    check_opened(data, image)
    if page:
        _seek(image, page)
        check_opened(data, image)
    image.load()
    turn = _TURNS.get(orientation_of(image))
    return image if turn is None else image.transpose(turn)


def _seek(image: Image.Image, page: int | str) -> None:
    frames = getattr(image, 'n_frames', 1)
    if not isinstance(page, int) or not 0 <= page < frames:
        raise ValueError(
            f'page={page!r} does not exist: the file holds {frames} images, numbered from 0'
        )
    image.seek(page)
