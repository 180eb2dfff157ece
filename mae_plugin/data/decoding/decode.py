"""EncodedImage: an image file in memory, with JPEG decoding at the speed of libjpeg-turbo."""

from __future__ import annotations

from typing import Literal

import numpy as np
import simplejpeg
from PIL import Image

from .bands import check_single, read_bands
from .image_formats import TIFF, open_image
from .jpeg_header import JpegHeader, plain_jpeg, read_jpeg_header
from .orientation import is_transposed, upright
from .plausible import check_jpeg
from .tiff import Page, read_tiff_colors

ChannelOrder = Literal['bgr', 'rgb']
ColorType = Literal['color', 'grayscale', 'unchanged']

_JPEG = b'\xff\xd8\xff'


class EncodedImage:
    """An image file in memory: its size without decoding, and its pixels at full or reduced size.

    The format is detected from the content, not from a file name. Rotation noted in EXIF is
    applied. With ``'color'``, gray, palette and CMYK images become three channels, 16-bit gray is
    scaled to 8 bits, and alpha is dropped, as in the authors' code.

    Args:
        data: content of the file.
        channel_order: order of colors; ``'bgr'`` is the order in mmpretrain's pipelines.
        color_type: ``'color'``, ``'grayscale'`` for one channel of 8 bits, or ``'unchanged'`` for
            the stored bands, their order and number type (see :func:`read_bands`).
        page: number of a page of a TIFF file, or of a frame, from 0. None is the first page, and
            with ``'unchanged'`` the only one. ``'all'`` takes pages as bands, with ``'unchanged'``.

    Attributes:
        size: height and width after rotation.

    Raises:
        ValueError: if the content is not an image, is damaged, has more pixels than Pillow's limit
            (:func:`~mae_plugin.data.decoding.limits.check_size`), or more than the length of the
            file can hold.
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
        # Forms that libjpeg-turbo does not convert to RGB, such as CMYK, are decoded by Pillow.
        self._jpeg: JpegHeader | None = None
        if header is None or not header.is_turbo:
            self._decoded = 1, self._with_pillow()
            height, width = self._decoded[1].shape[:2]
            self.size = height, width
            return
        self._jpeg = header
        check_single(page)
        self.size = header.height, header.width
        if is_transposed(header.orientation):
            self.size = header.width, header.height

    def pixels(self, reduction: int = 1) -> np.ndarray:
        """Returns the pixels (h, w, C), which are cached for the next call: do not modify them.

        Args:
            reduction: 1, 2, 4 or 8, by which height and width of a JPEG are divided. The reduction
                is part of the JPEG transform, hence faster than full decoding. Other formats are
                decoded at full size.

        Raises:
            ValueError: if the file is damaged or ends early.
        """
        is_other = self._decoded is None or self._decoded[0] != reduction
        if self._jpeg is not None and is_other:
            self._decoded = reduction, self._decode_jpeg(self._jpeg, reduction)
        assert self._decoded is not None
        return self._decoded[1]

    def _decode_jpeg(self, header: JpegHeader, reduction: int) -> np.ndarray:
        """Decodes a JPEG, turned by its orientation; files with harmless warnings pass."""
        try:
            pixels = self._decode_turbo(self.data, header, reduction)
        except ValueError as error:
            # simplejpeg raises the first warning of libjpeg, and some warnings do not concern the
            # pixels. The second attempt leaves out the segments that cause such warnings.
            _check_complete(error)
            try:
                pixels = self._decode_turbo(plain_jpeg(self.data), header, reduction)
            except ValueError as error:
                _check_complete(error)
                # Pillow ignores warnings and rejects truncated files.
                return self._with_pillow()
        return np.ascontiguousarray(upright(pixels, header.orientation))

    def _decode_turbo(self, data: bytes, header: JpegHeader, reduction: int) -> np.ndarray:
        """Decodes a JPEG with libjpeg-turbo, before rotation."""
        stored = 'gray' if len(header.sampling) == 1 else 'rgb'
        colors = dict(color=self._channel_order, grayscale='gray', unchanged=stored)
        # libjpeg takes the smallest of its sizes that is not below these; 0 is the full size.
        height = width = 0
        if reduction > 1:
            height = -(-header.height // reduction)
            width = -(-header.width // reduction)
        return simplejpeg.decode_jpeg(
            data, colors[self._color_type], min_height=height, min_width=width
        )

    def _with_pillow(self) -> np.ndarray:
        """Decodes a file of any other format; raises only ValueError."""
        try:
            return self._decode_other()
        except ValueError:
            raise
        # Decoders raise exceptions of many types for damaged files.
        except Exception as error:
            raise ValueError(str(error) or type(error).__name__) from error

    def _decode_other(self) -> np.ndarray:
        """Decodes a file of any format but plain JPEG to (H, W, C)."""
        if self._color_type == 'unchanged':
            return read_bands(self.data, self._page)
        if self.data.startswith(TIFF):
            image = read_tiff_colors(self.data, self._page)
        else:
            image = open_image(self.data, self._page)
        if image.mode[0] in 'FI':
            image = _to_8_bits(image)
        if self._color_type == 'grayscale':
            return np.array(image.convert('L'))[..., None]
        pixels = np.asarray(image.convert('RGB'))
        if self._channel_order == 'bgr':
            pixels = pixels[..., ::-1]
        return np.array(pixels, order='C')


def _check_complete(error: ValueError) -> None:
    """Raises ValueError if libjpeg's warning is a truncated file, which it would fill with gray."""
    if 'premature end of data segment' in str(error):
        raise ValueError(f'the JPEG is truncated: {error}') from None


def _to_8_bits(image: Image.Image) -> Image.Image:
    """Converts gray pixels of a deeper type to 8 bits, if their value of white is known."""
    pixels = np.asarray(image)
    if image.mode.startswith('I;16') or image.format == 'PPM':
        # Pillow would clip these 16 bits to 255.
        return Image.fromarray((pixels.clip(0, 65535) / 257).round().astype(np.uint8))
    if image.mode == 'I' and pixels.min() >= 0 and pixels.max() <= 255:
        return Image.fromarray(pixels.astype(np.uint8))
    kind = 'floating-point numbers' if image.mode == 'F' else 'integers of 32 bits beyond 0 to 255'
    raise ValueError(
        f"its pixels are {kind}, whose black and white are unknown; color_type='unchanged' keeps "
        'them as they are'
    )
