"""From a file to the crop of it that a model sees, in one transform: decode, crop, resize, flip."""

from __future__ import annotations

import errno

import numpy as np
import torch
from mmcv.transforms import BaseTransform
from mmengine.fileio import get
from torch.nn.functional import interpolate
from torchvision.transforms import RandomResizedCrop

from ..models.patches import to_pair
from ..utils.printable import printable
from .decoding.bands import has_no_data
from .decoding.decode import ChannelOrder, ColorType, EncodedImage
from .decoding.tiff import Page
from .skipped_images import SkippedImages
from .sources.open_files import is_out_of_descriptors, out_of_descriptors, read_file

Box = tuple[float, float, float, float]
"""Top, left, height and width of a part of an image, in pixels."""


class _LoadCrop(BaseTransform):
    """What both transforms share: reading, resizing, and what to do with files that cannot be
    read.
    """

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
        for name, value, known in (
            ('interpolation', interpolation, ('bicubic', 'bilinear')),
            ('channel_order', channel_order, ('bgr', 'rgb')),
            ('color_type', color_type, ('color', 'grayscale', 'unchanged')),
            ('on_error', on_error, ('skip', 'raise')),
        ):
            if value not in known:
                raise ValueError(
                    f'{name}={value!r} is unknown; it is one of {", ".join(map(repr, known))}'
                )
        self.scale = to_pair(scale)
        self.interpolation = interpolation
        self.channel_order = channel_order
        self.color_type = color_type
        self.nodata = None if nodata is None else float(nodata)
        self.reduce = reduce
        self.page = page
        self.on_error = on_error
        self.skipped = SkippedImages(max_skipped)
        self._last: EncodedImage | None = None

    def transform(self, results: dict) -> dict | None:
        """Adds ``img`` (h, w, C), uint8 unless pixels are left unchanged, or gives None for an
        image to skip.

        Args:
            results: with ``img_path`` (any address that mmengine reads), or ``img_bytes``, the
                file's content (then ``img_path`` is only what it is called), or ``img_error``, why
                there is none, or ``img``, pixels (H, W, C) that are taken as they are.

        Raises:
            FileNotFoundError: if there is no such file.
            ValueError: if it is no image.
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
        # Decoders raise what they like at broken files.
        except Exception as error:
            if is_out_of_descriptors(error):
                raise out_of_descriptors(printable(path)) from error
            if self.on_error == 'skip':
                self.skipped.skip(path, error)
                return None
            if isinstance(error, OSError) and error.errno == errno.ENOENT:
                raise FileNotFoundError(f'{path} does not exist') from error
            raise ValueError(f'{path} cannot be read as an image: {error}') from error

    def _open(self, path: str, data: bytes | None) -> EncodedImage:
        if data is None:
            data = get(path) if '://' in path else read_file(path)
        # Several crops of one image come one after the other (ResumableSampler's repeats); it is
        # decoded once.
        if self._last is None or self._last.data != data:
            self._last = EncodedImage(data, self.channel_order, self.color_type, self.page)
        return self._last

    def _resize(
        self, size: tuple[int, int], pixels, box: Box, target: tuple[int, int]
    ) -> np.ndarray:
        """Decodes an image of a size and brings a part of it to the target size."""
        top, left, height, width = box
        reduction = 1
        if self.reduce:
            spare = min(height / target[0], width / target[1])
            reduction = max(
                factor for factor in (1, 2, 4, 8) if factor == 1 or factor * _SPARE <= spare
            )
        img = pixels(reduction)
        if img.shape[:2] != size:
            across, along = img.shape[0] / size[0], img.shape[1] / size[1]
            top, height, left, width = top * across, height * across, left * along, width * along
        top, left = round(top), round(left)
        img = img[top : top + round(height), left : left + round(width)]
        return resize(img, target, self.interpolation, self.nodata)


# A reduced crop keeps this many times the pixels of the output along each side; docs/benchmarks.md
# has what it costs.
_SPARE = 1


class LoadRandomCrop(_LoadCrop):
    """Reads an image and takes a random part of it, resized and perhaps flipped: the augmentation
    of MAE.

    Draws what torchvision's ``RandomResizedCrop`` and ``RandomHorizontalFlip`` would draw, one
    after the other, from torch's generator in the same state. Takes the place of
    ``LoadImageFromFile``, ``RandomResizedCrop`` and ``RandomFlip``.

    Args:
        scale: height and width of the output.
        crop_ratio_range: least and greatest share of the image's area.
        aspect_ratio_range: least and greatest width over height of the part.
        flip_prob: chance of a horizontal flip.
        interpolation: ``'bicubic'`` or ``'bilinear'``, both antialiased.
        channel_order: ``'bgr'``, as mmpretrain's pipelines pass images on, or ``'rgb'``.
        color_type: ``'color'``, ``'grayscale'``, or ``'unchanged'`` for images of any bands and
            number type.
        nodata: pixels whose bands all have this value, or, if it is NaN, any, hold no data;
            resizing does not mix them with others (see :class:`BandDataPreprocessor`).
        reduce: decode JPEGs at half, a quarter or an eighth of their size where the part is that
            much larger than the output: faster, with slightly other pixels.
        on_error: ``'skip'`` lets another image take the place of one that cannot be read,
            ``'raise'`` ends the run.
        max_skipped: share of images that may be skipped before the run ends.
        page: number of a page of TIFF files, or of a frame, from 0; ``'all'`` takes pages as bands,
            ``'unchanged'`` alone; None is the first, and in ``'unchanged'`` the only one.
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

    def _crop(self, results: dict, size: tuple[int, int], pixels) -> dict:
        # torchvision looks at the shape alone.
        shape = torch.empty(1, 1, 1).expand(1, *size)
        box = RandomResizedCrop.get_params(
            shape, list(self.crop_ratio_range), list(self.aspect_ratio_range)
        )
        flip = torch.rand(1).item() < self.flip_prob
        img = self._resize(size, pixels, box, self.scale)
        if flip:
            # numpy would copy byte by byte, and torch turns signed integers of every size, not all
            # unsigned ones.
            img = torch.from_numpy(img.view(f'i{img.itemsize}')).flip(1).numpy().view(img.dtype)
            results['flip_direction'] = 'horizontal'
        results.update(img=img, img_shape=img.shape[:2], ori_shape=size, flip=flip)
        return results


class LoadCenterCrop(_LoadCrop):
    """Reads an image, resizes it and takes the centre: what evaluation looks at.

    Takes the place of ``LoadImageFromFile``, ``ResizeEdge`` and ``CenterCrop``. Arguments are those
    of :class:`LoadRandomCrop`, errors are raised, and:

    Args:
        scale: height and width of the output.
        crop_ratio: height of the output over the height that the image is resized to (width, if
            that asks for more): 224 / 256 up to 224 pixels and 1 above in the authors' code.
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

    def _crop(self, results: dict, size: tuple[int, int], pixels) -> dict:
        (height, width), (h, w) = size, self.scale
        least = round(h / self.crop_ratio), round(w / self.crop_ratio)
        # The side that has the least to spare comes out exactly, the other is cut off as
        # torchvision does.
        if least[0] * width >= least[1] * height:
            full = least[0], max(least[1], least[0] * width // height)
        else:
            full = max(least[0], least[1] * height // width), least[1]
        img = self._resize(size, pixels, (0, 0, height, width), full)
        top, left = round((full[0] - h) / 2), round((full[1] - w) / 2)
        img = np.ascontiguousarray(img[top : top + h, left : left + w])
        results.update(img=img, img_shape=img.shape[:2], ori_shape=size)
        return results


def resize(
    img: np.ndarray,
    size: tuple[int, int],
    interpolation: str = 'bicubic',
    nodata: float | None = None,
) -> np.ndarray:
    """Resizes (H, W, C) with antialiasing to a new array of that size and dtype.

    Within rounding of Pillow's resize for uint8, the only type that torch resizes with vectorised
    integer arithmetic; others take the way over floats that hold all their values (64-bit integers
    within 53 bits). A bool pixel becomes what most of its surroundings are. All that would be mixed
    with pixels without data becomes ``nodata`` as well.
    """
    if img.shape[:2] == size:
        return img.copy()
    empty = None if nodata is None else has_no_data(img, nodata)
    if empty is not None and empty.any():
        filled = np.where(
            empty[..., None], img[~empty].mean(axis=0) if not empty.all() else 0, img
        ).astype(img.dtype)
        out = resize(filled, size, interpolation)
        share = resize(empty[..., None].astype(np.float32), size, interpolation)[..., 0]
        out[np.abs(share) > 1e-6] = nodata
        return out
    if img.dtype == np.uint8:
        # What torch knows as channels_last: its integer kernel reads and writes pixels in this
        # order, without a copy.
        tensor = torch.from_numpy(np.ascontiguousarray(img))[None].permute(0, 3, 1, 2)
    else:
        exact = np.float32 if img.dtype.itemsize <= 2 or img.dtype == np.float32 else np.float64
        tensor = torch.from_numpy(np.ascontiguousarray(img, exact)).permute(2, 0, 1)[None]
    out = interpolate(tensor, size=size, mode=interpolation, antialias=True)
    out = out[0].permute(1, 2, 0).contiguous().numpy()
    if img.dtype == np.bool_:
        return out >= 0.5
    if np.issubdtype(img.dtype, np.integer) and out.dtype != img.dtype:
        limits = np.iinfo(img.dtype)
        # 2**63 - 1 itself is no float, and the next one above does not fit.
        greatest = (
            np.nextafter(out.dtype.type(limits.max), 0) if img.dtype.itemsize == 8 else limits.max
        )
        out = out.round().clip(limits.min, greatest)
    return out.astype(img.dtype, copy=False)
