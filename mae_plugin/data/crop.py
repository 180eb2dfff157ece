"""Transforms that read an image file and take a crop: decode, crop, resize and flip in one step."""

from __future__ import annotations

import errno
from collections.abc import Callable

import numpy as np
import torch
from mmcv.transforms import BaseTransform
from mmengine.fileio import get
from torchvision.transforms import RandomResizedCrop

from ..models.patches import to_pair
from ..utils.printable import printable
from .decoding.decode import ChannelOrder, ColorType, EncodedImage
from .decoding.tiff import Page
from .resize import resize
from .skipped_images import SkippedImages
from .sources.open_files import is_out_of_descriptors, out_of_descriptors, read_file

Box = tuple[float, float, float, float]
"""Top, left, height and width of a part of an image, in pixels."""

Decode = Callable[[int], np.ndarray]
"""Returns the pixels (h, w, C) of an image, decoded at 1 / reduction of its size."""

_CHOICES = {
    'interpolation': ('bicubic', 'bilinear'),
    'channel_order': ('bgr', 'rgb'),
    'color_type': ('color', 'grayscale', 'unchanged'),
    'on_error': ('skip', 'raise'),
}

# A reduced crop keeps this many times the pixels of the output along each side; docs/benchmarks.md
# lists the cost in accuracy and time.
_MARGIN = 1


class _LoadCrop(BaseTransform):
    """Shared behavior of both transforms: reading, resizing, and handling of unreadable files."""

    def __init__(
        self,
        scale: int | tuple[int, int],
        interpolation: str = 'bicubic',
        channel_order: ChannelOrder = 'bgr',
        color_type: ColorType = 'color',
        nodata: float | str | None = None,
        reduce: bool = False,
        on_error: str = 'raise',
        max_skipped: float = 0.1,
        page: Page = None,
    ) -> None:
        if page not in (None, 'all') and not (isinstance(page, int) and page >= 0):
            raise ValueError(f"page={page!r} is no page: it is a number from 0, 'all' or None")
        if page == 'all' and color_type != 'unchanged':
            raise ValueError("page='all' takes pages as bands, which needs color_type='unchanged'")
        self.scale = to_pair(scale)
        self.interpolation = interpolation
        self.channel_order = channel_order
        self.color_type = color_type
        self.nodata = None if nodata is None else float(nodata)
        self.reduce = reduce
        self.page = page
        self.on_error = on_error
        for name, choices in _CHOICES.items():
            value = getattr(self, name)
            if value not in choices:
                raise ValueError(
                    f'{name}={value!r} is unknown; it is one of {", ".join(map(repr, choices))}'
                )
        self.skipped = SkippedImages(max_skipped)
        self._last: EncodedImage | None = None

    def transform(self, results: dict) -> dict | None:
        """Adds ``img`` (h, w, C), or returns None for an image to skip.

        The pixels are uint8 unless ``color_type`` is ``'unchanged'``.

        Args:
            results: dict with one of ``img_path`` (a path or any URL that mmengine reads);
                ``img_bytes``, the content of the file (``img_path`` is then only its name);
                ``img_error``, the exception that reading raised; or ``img``, decoded pixels
                (H, W, C), which are used as they are.

        Raises:
            FileNotFoundError: if the file does not exist.
            ValueError: if the file is not an image.
        """
        if 'img' in results:
            img = np.atleast_3d(results['img'])
            return self._crop(results, img.shape[:2], lambda reduction: img)
        self.skipped.count()
        path = str(results.get('img_path', 'the image'))
        try:
            if 'img_error' in results:
                raise results['img_error']
            image = self._open(path, results.pop('img_bytes', None))
            return self._crop(results, image.size, image.pixels)
        # Decoders raise exceptions of many types for damaged files.
        except Exception as error:
            if is_out_of_descriptors(error):
                raise out_of_descriptors(printable(path)) from error
            if self.on_error == 'skip':
                self.skipped.skip(path, error)
                return None
            if isinstance(error, OSError) and error.errno == errno.ENOENT:
                raise FileNotFoundError(f'{path} does not exist') from error
            raise ValueError(f'{path} cannot be read as an image: {error}') from error

    def _crop(self, results: dict, size: tuple[int, int], decode: Decode) -> dict:
        """Adds the crop of an image of a size (H, W) to ``results``."""
        raise NotImplementedError

    def _open(self, path: str, data: bytes | None) -> EncodedImage:
        """Opens an image from its content, or from its path if ``data`` is None."""
        if data is None:
            data = get(path) if '://' in path else read_file(path)
        # The repeats of ResumableSampler request several crops of one image in a row, which is
        # decoded once.
        if self._last is None or self._last.data != data:
            self._last = EncodedImage(data, self.channel_order, self.color_type, self.page)
        return self._last

    def _resize(
        self, size: tuple[int, int], decode: Decode, box: Box, target: tuple[int, int]
    ) -> np.ndarray:
        """Decodes an image of a size (H, W) and resizes the part ``box`` to the target size."""
        top, left, height, width = box
        img = decode(self._reduction(box, target))
        if img.shape[:2] != size:
            # The image was decoded at a reduced size: the box is scaled to it.
            vertical, horizontal = img.shape[0] / size[0], img.shape[1] / size[1]
            top, height = top * vertical, height * vertical
            left, width = left * horizontal, width * horizontal
        top, left = round(top), round(left)
        img = img[top : top + round(height), left : left + round(width)]
        return resize(img, target, self.interpolation, self.nodata)

    def _reduction(self, box: Box, target: tuple[int, int]) -> int:
        """Returns the factor by which decoding may reduce the image, 1 unless ``reduce`` is set."""
        if not self.reduce:
            return 1
        _, _, height, width = box
        largest = min(height / target[0], width / target[1])
        return max(factor for factor in (1, 2, 4, 8) if factor == 1 or factor * _MARGIN <= largest)


class LoadRandomCrop(_LoadCrop):
    """Reads an image and takes a random resized crop, perhaps flipped: the augmentation of MAE.

    Draws the same crop and flip as torchvision's ``RandomResizedCrop`` followed by
    ``RandomHorizontalFlip`` with the same state of torch's generator. Replaces
    ``LoadImageFromFile``, ``RandomResizedCrop`` and ``RandomFlip``.

    Args:
        scale: height and width of the output.
        crop_ratio_range: smallest and largest share of the image's area.
        aspect_ratio_range: smallest and largest width / height of the crop.
        flip_prob: probability of a horizontal flip.
        interpolation: ``'bicubic'`` or ``'bilinear'``, both antialiased.
        channel_order: ``'bgr'``, the order in mmpretrain's pipelines, or ``'rgb'``.
        color_type: ``'color'``, ``'grayscale'``, or ``'unchanged'`` for images of any bands and
            number type.
        nodata: value of pixels without data. A pixel holds no data if all its bands have this
            value, or, for NaN, if any band is NaN. Resizing does not mix such pixels with others
            (see :class:`BandDataPreprocessor`).
        reduce: decodes JPEGs at 1/2, 1/4 or 1/8 of their size where the crop is that much larger
            than the output. This is faster, with slightly different pixels.
        on_error: ``'skip'`` replaces an unreadable image by another one, ``'raise'`` ends the run.
        max_skipped: share of images that may be skipped before the run ends.
        page: number of a page of a TIFF file, or of a frame, from 0. ``'all'`` takes pages as bands
            and needs ``color_type='unchanged'``. None is the first page, and with ``'unchanged'``
            the only one.
    """

    def __init__(
        self,
        scale: int | tuple[int, int],
        crop_ratio_range: tuple[float, float] = (0.08, 1.0),
        aspect_ratio_range: tuple[float, float] = (3 / 4, 4 / 3),
        flip_prob: float = 0.5,
        on_error: str = 'skip',
        **kwargs,
    ) -> None:
        super().__init__(scale, on_error=on_error, **kwargs)
        self.crop_ratio_range = tuple(crop_ratio_range)
        self.aspect_ratio_range = tuple(aspect_ratio_range)
        self.flip_prob = flip_prob

    def _crop(self, results: dict, size: tuple[int, int], decode: Decode) -> dict:
        """Adds a random crop, perhaps flipped."""
        # torchvision reads only the shape.
        shape = torch.empty(1, 1, 1).expand(1, *size)
        box = RandomResizedCrop.get_params(
            shape, list(self.crop_ratio_range), list(self.aspect_ratio_range)
        )
        flip = torch.rand(1).item() < self.flip_prob
        img = self._resize(size, decode, box, self.scale)
        if flip:
            # numpy would copy byte by byte. torch flips signed integers of every size, but not all
            # unsigned ones.
            img = torch.from_numpy(img.view(f'i{img.itemsize}')).flip(1).numpy().view(img.dtype)
            results['flip_direction'] = 'horizontal'
        results.update(img=img, img_shape=img.shape[:2], ori_shape=size, flip=flip)
        return results


class LoadCenterCrop(_LoadCrop):
    """Reads an image, resizes it and takes the center crop, as in evaluation.

    Replaces ``LoadImageFromFile``, ``ResizeEdge`` and ``CenterCrop``. Accepts the arguments of
    :class:`LoadRandomCrop` that concern reading, with ``on_error='raise'`` as default.

    Args:
        scale: height and width of the output.
        crop_ratio: height (or width) of the output / height (or width) of the resized image,
            whichever gives the larger image. The authors' code uses 224 / 256 up to 224 pixels
            and 1 above.
    """

    def __init__(
        self, scale: int | tuple[int, int], crop_ratio: float = 224 / 256, **kwargs
    ) -> None:
        super().__init__(scale, **kwargs)
        if not 0 < crop_ratio <= 1:
            raise ValueError(
                f'crop_ratio={crop_ratio} is out of range: it lies above 0 and is at most 1'
            )
        self.crop_ratio = crop_ratio

    def _crop(self, results: dict, size: tuple[int, int], decode: Decode) -> dict:
        """Adds the center crop."""
        (height, width), (h, w) = size, self.scale
        least = round(h / self.crop_ratio), round(w / self.crop_ratio)
        # The tighter side gets exactly its length; the other is rounded down as in torchvision.
        if least[0] * width >= least[1] * height:
            full = least[0], max(least[1], least[0] * width // height)
        else:
            full = max(least[0], least[1] * height // width), least[1]
        img = self._resize(size, decode, (0, 0, height, width), full)
        top, left = round((full[0] - h) / 2), round((full[1] - w) / 2)
        img = np.ascontiguousarray(img[top : top + h, left : left + w])
        results.update(img=img, img_shape=img.shape[:2], ori_shape=size)
        return results
