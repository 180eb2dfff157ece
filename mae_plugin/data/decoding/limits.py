"""Size limits of images for all readers, checked on the header before memory is allocated."""

from __future__ import annotations

from PIL import Image

# Bytes per pixel of Pillow's own images, so that every image within Pillow's limit passes.
_BYTES_PER_PIXEL = 4


def max_pixels() -> int | None:
    """Returns the largest number of pixels of an image, or None for no limit.

    It is ``2 * PIL.Image.MAX_IMAGE_PIXELS``, the limit of Pillow itself. Setting
    ``PIL.Image.MAX_IMAGE_PIXELS`` changes the limit of all readers.
    """
    return 2 * Image.MAX_IMAGE_PIXELS if Image.MAX_IMAGE_PIXELS else None


def check_size(height: int, width: int, bands: int = 1, itemsize: int = 1) -> None:
    """Raises ValueError if the size in a header is beyond the limits.

    Args:
        height: of the decoded image, in pixels.
        width: of the decoded image, in pixels.
        bands: values per pixel.
        itemsize: bytes per value.

    Raises:
        ValueError: if the image is empty, has more pixels than :func:`max_pixels`, or takes more
            than four bytes for each of so many pixels.
    """
    if min(height, width, bands) < 1:
        raise ValueError(f'an image of {width} x {height} pixels and {bands} bands is empty')
    limit = max_pixels()
    if limit is None:
        return
    remedy = 'PIL.Image.MAX_IMAGE_PIXELS sets the limit'
    if height * width > limit:
        raise ValueError(
            f'{width} x {height} pixels are more than the {limit} that are allowed; {remedy}'
        )
    size = height * width * bands * itemsize
    if size > limit * _BYTES_PER_PIXEL:
        raise ValueError(
            f'{width} x {height} pixels of {bands} bands of {itemsize} bytes take {size} bytes, '
            f'more than the {limit * _BYTES_PER_PIXEL} that are allowed; {remedy}'
        )
