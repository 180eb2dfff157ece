"""From the bytes of an image file to pixels: JPEG at the speed of libjpeg-turbo, images of many bands as they are."""

from __future__ import annotations

from io import BytesIO
from typing import Literal

import numpy as np
import simplejpeg
from PIL import Image

from .bands import read_bands
from .formats import open_image
from .limits import check_size

ChannelOrder = Literal['bgr', 'rgb']
ColorType = Literal['color', 'grayscale', 'unchanged']

_ORIENTATION = 0x0112  # EXIF tag
_TRANSPOSED, _MIRRORED, _UPSIDE_DOWN = (5, 6, 7, 8), (2, 3, 6, 7), (3, 4, 7, 8)


class EncodedImage:
    """An image file in memory: its size without decoding it, and its pixels at full or reduced size.

    Looks at the content, never at a file name. Rotation noted in EXIF is applied. In colour, gray, palette and CMYK
    images become three channels, 16-bit gray is scaled to 8 bits, alpha is dropped, as in the authors' code.

    Args:
        data: content of the file.
        channel_order: of colours; ``'bgr'`` is what mmpretrain's pipelines pass on.
        color_type: ``'color'``, ``'grayscale'`` for one channel of 8 bits, or ``'unchanged'`` for the bands, their
            order and their number type as they are stored (see :func:`read_bands`).

    Raises:
        ValueError: if this is no image, or one of more pixels than Pillow takes for an attack
            (``2 * PIL.Image.MAX_IMAGE_PIXELS``).
    """

    def __init__(self, data: bytes, channel_order: ChannelOrder = 'bgr', color_type: ColorType = 'color') -> None:
        if not data:
            raise ValueError('the file is empty')
        self.data = data
        self._channel_order = channel_order
        self._color_type = color_type
        self._decoded: tuple[int, np.ndarray] | None = None
        # CMYK is left to Pillow, as libjpeg does not bring it to RGB.
        self._stored_size, is_gray = _rgb_jpeg_header(data)
        stored = 'gray' if is_gray else 'rgb'
        self._jpeg_colors = dict(color=channel_order, grayscale='gray', unchanged=stored)[color_type]
        self.size = self._stored_size
        """Height and width as seen, that is after rotation."""
        if self._stored_size is None:
            self._decoded = 1, self._decode_other()
            self.size = self._decoded[1].shape[:2]
            return
        height, width = self._stored_size
        check_size(height, width, bands=1 if is_gray else 3)
        # Pillow takes longer than a glance.
        exif = Image.open(BytesIO(data)).getexif() if _may_have_exif(data) else {}
        self._orientation = exif.get(_ORIENTATION, 1)
        if self._orientation in _TRANSPOSED:
            self.size = width, height

    def pixels(self, reduction: int = 1) -> np.ndarray:
        """The pixels, (h, w, C), which must not be written to: they are kept for the next call.

        Args:
            reduction: 1, 2, 4 or 8: height and width of a JPEG are divided by this, within its transform and hence
                faster than a whole decode. Other formats come out whole.
        """
        if self._stored_size is not None and (self._decoded is None or self._decoded[0] != reduction):
            self._decoded = reduction, self._decode_jpeg(reduction)
        return self._decoded[1]

    def _decode_jpeg(self, reduction: int) -> np.ndarray:
        try:
            # libjpeg takes the smallest of its sizes that is not below these; 0 is the full one.
            least = [-(-side // reduction) if reduction > 1 else 0 for side in self._stored_size]
            pixels = simplejpeg.decode_jpeg(self.data, self._jpeg_colors, min_height=least[0], min_width=least[1])
        except ValueError:
            # simplejpeg stops at every remark of libjpeg's. Pillow lets harmless ones pass and refuses truncated files.
            return self._decode_other()
        if self._orientation in _TRANSPOSED:
            pixels = pixels.transpose(1, 0, 2)
        if self._orientation in _MIRRORED:
            pixels = pixels[:, ::-1]
        if self._orientation in _UPSIDE_DOWN:
            pixels = pixels[::-1]
        return np.ascontiguousarray(pixels)

    def _decode_other(self) -> np.ndarray:
        if self._color_type == 'unchanged':
            return read_bands(self.data)
        image = open_image(self.data)
        if image.mode == 'F':
            raise ValueError(
                "its pixels are floating-point numbers, whose black and white are unknown; color_type='unchanged' "
                'keeps them as they are'
            )
        if image.mode.startswith('I'):
            # Pillow itself would clip these 16 bits to 255.
            image = Image.fromarray((np.asarray(image).clip(0, 65535) / 257).round().astype(np.uint8))
        if self._color_type == 'grayscale':
            return np.array(image.convert('L'))[..., None]
        pixels = np.asarray(image.convert('RGB'))
        return np.array(pixels if self._channel_order == 'rgb' else pixels[..., ::-1], order='C')


def _may_have_exif(jpeg: bytes) -> bool:
    """Whether one of the segments before the first scan holds Exif, or these cannot be followed."""
    place = 2
    while jpeg[place : place + 1] == b'\xff':
        if jpeg[place + 1 : place + 2] == b'\xda':
            return False
        if jpeg[place + 4 : place + 10] == b'Exif\0\0':
            return True
        place += 2 + int.from_bytes(jpeg[place + 2 : place + 4], 'big')
    return True


def _rgb_jpeg_header(data: bytes) -> tuple[tuple[int, int] | None, bool]:
    """Height and width of a JPEG that libjpeg itself brings to RGB, and whether it is gray; None for any other file."""
    if not data.startswith(b'\xff\xd8\xff'):
        return None, False
    try:
        height, width, colors, _ = simplejpeg.decode_jpeg_header(data, strict=False)
    # Broken headers; Pillow says what is wrong with them.
    except (ValueError, KeyError):
        return None, False
    return None if colors in ('CMYK', 'YCCK') else (height, width), colors == 'Gray'
