"""Checks that a file is long enough for the size in its header, before memory is allocated."""

from __future__ import annotations

from PIL import ImageFile

from .jpeg_header import MAX_SCANS, JpegHeader, count_scans, read_jpeg_header
from .limits import check_size

# A header may claim this many pixels whatever the length of the file. They are decoded within a
# second and in some 20 MB.
_FREE_PIXELS = 2**22

# Largest number of bytes that one byte decodes to, by Pillow's name of the decoder or, in TIFF, of
# the compression.
_EXPANSION = {
    'raw': 1,
    'zip': 1032,
    'tiff_deflate': 1032,
    'tiff_adobe_deflate': 1032,
    # 12 bits for the longest string of a table of 4096 entries.
    'gif': 2731,
    'tiff_lzw': 2731,
    'packbits': 64,
    'pcx': 64,
    'sgi_rle': 128,
    'sun_rle': 128,
    'tga_rle': 128,
    'bcn': 8,
}
# Arithmetic coders have no bound. 12,000 x 12,000 white pixels stay below this one in all formats
# that use them.
_ANY_EXPANSION = 2**18
# In other modes, a pixel takes at least a byte, also in files.
_ONE_BIT_MODES = ('1', 'L', 'P')
_PNG_CHANNELS = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}


def check_jpeg(data: bytes, header: JpegHeader) -> None:
    """Checks process, precision, size, length and number of scans of a JPEG by its header.

    Raises:
        ValueError: if the JPEG is hierarchical or not of 8 bits, too large, too short for its size,
            or has more than ``MAX_SCANS`` scans.
    """
    if header.process not in (0, 1, 2, 3, 9, 10):
        raise ValueError(
            f'a JPEG of the kind SOF{header.process}, such as hierarchical ones, has no decoder '
            'here'
        )
    if header.precision != 8:
        raise ValueError(
            f'a JPEG of {header.precision} bits per sample has no decoder here, which take 8'
        )
    check_size(header.height, header.width, len(header.sampling))
    if header.process in (0, 1, 2, 3) or header.height * header.width > _FREE_PIXELS:
        _check_length(header.height, header.width, header.least_bytes, data)
    scans = count_scans(data, header) if header.process != 0 or header.is_split else 1
    if scans > MAX_SCANS:
        raise ValueError(
            f'a JPEG of {scans} scans is refused: encoders make about ten, and {MAX_SCANS} are '
            'allowed'
        )


def check_png(data: bytes) -> None:
    """Checks size and length of a PNG file by its header.

    Raises:
        ValueError: if it is too large, or too short for its size.
    """
    if data[12:16] != b'IHDR' or len(data) < 26:
        raise ValueError('the PNG file does not start with its header')
    width, height = (int.from_bytes(data[place : place + 4], 'big') for place in (16, 20))
    channels, bits = _PNG_CHANNELS.get(data[25], 1), data[24]
    check_size(height, width, channels, (bits + 7) // 8)
    least = height * width * channels * bits // 8 // _EXPANSION['zip']
    _check_length(height, width, least, data)


def check_unopened(data: bytes) -> None:
    """Checks size and length of files for which Pillow allocates memory on opening.

    Raises:
        ValueError: if an image is too large, or too large for the length of the file.
    """
    if data.startswith(b'RIFF') and data.startswith(b'WEBP', 8):
        _check_webp(data)
    elif data.startswith((b'\0\0\1\0', b'\0\0\2\0')):
        _check_icons(data)


def _check_webp(data: bytes) -> None:
    """Checks a WebP file, whose header has three kinds."""
    kind, body = data[12:16], data[20:30]
    if len(body) < 10:
        raise ValueError('the WebP file ends early')
    if kind == b'VP8X':
        width = int.from_bytes(body[4:7], 'little') + 1
        height = int.from_bytes(body[7:10], 'little') + 1
    elif kind == b'VP8L':
        bits = int.from_bytes(body[1:5], 'little')
        width, height = (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
    else:
        width = int.from_bytes(body[6:8], 'little') & 0x3FFF
        height = int.from_bytes(body[8:10], 'little') & 0x3FFF
    check_size(height, width, bands=4)
    pixels = height * width
    least = pixels // _ANY_EXPANSION if pixels > _FREE_PIXELS else 0
    _check_length(height, width, least, data)


def check_opened(data: bytes, image: ImageFile.ImageFile) -> None:
    """Checks size and length of a file whose header Pillow has read.

    Raises:
        ValueError: if the image is too large, or the file too short for its size.
    """
    height, width = image.height, image.width
    check_size(height, width, len(image.getbands()))
    if image.format in ('JPEG', 'MPO'):
        header = read_jpeg_header(data)
        if header is not None:
            check_jpeg(data, header)
    if image.format == 'PNG' and data[12:16] == b'IHDR':
        check_png(data)
    if height * width <= _FREE_PIXELS:
        return
    bits = 1 if image.mode in _ONE_BIT_MODES else 8
    least = height * width * bits // 8 // _EXPANSION.get(_coder(image) or '', _ANY_EXPANSION)
    _check_length(height, width, least, data)


def _coder(image: ImageFile.ImageFile) -> str | None:
    """Returns Pillow's name of the decoder of an opened image, or in TIFF of the compression."""
    # Plugins that decode by themselves pass raw pixels to Pillow.
    if not image.tile or image.format in ('AVIF', 'HEIF', 'WEBP'):
        return image.format
    coder = image.tile[0][0]
    return image.info.get('compression') if coder == 'libtiff' else coder


def _check_icons(data: bytes) -> None:
    """Checks the images in a file of icons, whose sizes may differ from those in its directory.

    An icon is a PNG file or a bitmap.
    """
    for entry in range(6, 6 + 16 * int.from_bytes(data[4:6], 'little'), 16):
        start = int.from_bytes(data[entry + 12 : entry + 16], 'little')
        icon = data[start:]
        if icon.startswith(b'\x89PNG'):
            check_png(icon)
            continue
        width = int.from_bytes(icon[4:8], 'little', signed=True)
        height = int.from_bytes(icon[8:12], 'little', signed=True)
        # One bit of color and one of the mask per pixel. The mask lies below the color, so the
        # height counts both.
        _check_length(abs(height), abs(width), abs(width * height) // 8, icon)


def _check_length(height: int, width: int, least: int, data: bytes) -> None:
    """Raises ValueError if a file is shorter than ``least`` bytes."""
    if len(data) < least:
        raise ValueError(
            f'its header claims {width} x {height} pixels, which take at least {least} bytes, and '
            f'it has {len(data)}'
        )
