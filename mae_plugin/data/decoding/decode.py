"""From the bytes of an image file to pixels: JPEG at the speed of libjpeg-turbo, images of many
bands as they are.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
import simplejpeg
from PIL import Image

from .bands import check_single, read_bands
from .image_formats import TIFF, open_image
from .jpeg_header import plain_jpeg, read_jpeg_header
from .orientation import is_transposed, upright
from .plausible import check_jpeg
from .tiff import Page, read_tiff_colors

ChannelOrder = Literal['bgr', 'rgb']
ColorType = Literal['color', 'grayscale', 'unchanged']

_JPEG = b'\xff\xd8\xff'


class EncodedImage:
    """An image file in memory: its size without decoding it, and its pixels at full or reduced
    size.

    Looks at the content, never at a file name. Rotation noted in EXIF is applied. In colour, gray,
    palette and CMYK images become three channels, 16-bit gray is scaled to 8 bits, alpha is
    dropped, as in the authors' code.

    Args:
        data: content of the file.
        channel_order: of colours; ``'bgr'`` is what mmpretrain's pipelines pass on.
        color_type: ``'color'``, ``'grayscale'`` for one channel of 8 bits, or ``'unchanged'`` for
            the bands, their order and their number type as they are stored (see
            :func:`read_bands`).
        page: number of a page of a TIFF file, or of a frame, from 0; None is the first in color and
            the only one unchanged; ``'all'`` takes pages as bands, unchanged.

    Raises:
        ValueError: if this is no image, a damaged one, one of more pixels than Pillow takes for an
            attack (:func:`~mae_plugin.data.decoding.limits.check_size`), or one of more than the
            file's length can hold.
    """

    def __init__(
        self,
        data: bytes,
        channel_order: ChannelOrder = 'bgr',
        color_type: ColorType = 'color',
        page: Page = None,
    ) -> None:
        if not data:
            raise ValueError('the file is empty')
        self.data = data
        self._channel_order = channel_order
        self._color_type = color_type
        self._page = page
        self._decoded: tuple[int, np.ndarray] | None = None
        header = read_jpeg_header(data) if data.startswith(_JPEG) else None
        if header is not None:
            check_jpeg(data, header)
        # What libjpeg-turbo does not bring to RGB itself, CMYK for instance, is left to Pillow.
        self._jpeg = header if header is not None and header.is_turbo else None
        if self._jpeg is None:
            self._decoded = 1, self._with_pillow()
            self.size = self._decoded[1].shape[:2]
            return
        check_single(page)
        self.size = header.height, header.width
        """Height and width as seen, that is after rotation."""
        if is_transposed(header.orientation):
            self.size = header.width, header.height

    def pixels(self, reduction: int = 1) -> np.ndarray:
        """The pixels, (h, w, C), which must not be written to: they are kept for the next call.

        Args:
            reduction: 1, 2, 4 or 8: height and width of a JPEG are divided by this, within its
                transform and hence faster than a whole decode. Other formats come out whole.

        Raises:
            ValueError: if the file is damaged or ends early.
        """
        if self._jpeg is not None and (self._decoded is None or self._decoded[0] != reduction):
            self._decoded = reduction, self._decode_jpeg(reduction)
        return self._decoded[1]

    def _decode_jpeg(self, reduction: int) -> np.ndarray:
        try:
            pixels = self._decode_turbo(self.data, reduction)
        except ValueError as error:
            # simplejpeg stops at every warning of libjpeg's and tells the first. Some say nothing
            # of the pixels.
            _check_is_whole(error)
            try:
                pixels = self._decode_turbo(plain_jpeg(self.data), reduction)
            except ValueError as error:
                _check_is_whole(error)
                # Pillow lets warnings pass, and refuses files without an end.
                return self._with_pillow()
        return np.ascontiguousarray(upright(pixels, self._jpeg.orientation))

    def _decode_turbo(self, data: bytes, reduction: int) -> np.ndarray:
        stored = 'gray' if len(self._jpeg.sampling) == 1 else 'rgb'
        colors = dict(color=self._channel_order, grayscale='gray', unchanged=stored)[
            self._color_type
        ]
        # libjpeg takes the smallest of its sizes that is not below these; 0 is the full one.
        height, width = (
            -(-side // reduction) if reduction > 1 else 0
            for side in (self._jpeg.height, self._jpeg.width)
        )
        return simplejpeg.decode_jpeg(data, colors, min_height=height, min_width=width)

    def _with_pillow(self) -> np.ndarray:
        try:
            return self._decode_other()
        except ValueError:
            raise
        # Decoders raise what they like at broken files.
        except Exception as error:
            raise ValueError(str(error) or type(error).__name__) from error

    def _decode_other(self) -> np.ndarray:
        if self._color_type == 'unchanged':
            return read_bands(self.data, self._page)
        if self.data.startswith(TIFF):
            image = read_tiff_colors(self.data, self._page)
        else:
            image = open_image(self.data, self._page)
        if image.mode[0] in 'FI':
            image = _of_8_bits(image)
        if self._color_type == 'grayscale':
            return np.array(image.convert('L'))[..., None]
        pixels = np.asarray(image.convert('RGB'))
        return np.array(pixels if self._channel_order == 'rgb' else pixels[..., ::-1], order='C')


def _check_is_whole(error: ValueError) -> None:
    """Raises ValueError if libjpeg's warning is that data end early, where it goes on with gray."""
    if 'premature end of data segment' in str(error):
        raise ValueError(f'the JPEG is truncated: {error}') from None


def _of_8_bits(image: Image.Image) -> Image.Image:
    """Brings gray pixels of a deeper type to 8 bits, as far as it is known what white is."""
    pixels = np.asarray(image)
    if image.mode.startswith('I;16') or image.format == 'PPM':
        # Pillow itself would clip these 16 bits to 255.
        return Image.fromarray((pixels.clip(0, 65535) / 257).round().astype(np.uint8))
    if image.mode == 'I' and pixels.min() >= 0 and pixels.max() <= 255:
        return Image.fromarray(pixels.astype(np.uint8))
    kind = 'floating-point numbers' if image.mode == 'F' else 'integers of 32 bits beyond 0 to 255'
    raise ValueError(
        f"its pixels are {kind}, whose black and white are unknown; color_type='unchanged' keeps "
        'them as they are'
    )
