"""Conversion of files, arrays and PIL images to a model's inputs, and of inputs to RGB images."""

from __future__ import annotations

import glob
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, cast

import cv2
import numpy as np
from mmcv.transforms import LoadImageFromFile
from mmengine.config import Config
from mmengine.dataset import Compose
from mmpretrain.datasets import PackInputs
from mmpretrain.registry import TRANSFORMS
from PIL import Image
from torch import Tensor, nn

from ..data import LoadCenterCrop
from ..data.sources.entries import ARCHIVES, IMAGE_EXTENSIONS
from ..data.sources.folder import scan_folder
from ..models.patches import to_pair
from ..utils._compat.mmpretrain import converts_channels, normalizes

ImageLike = str | Path | np.ndarray | Image.Image


def find_images(*places: str | Path) -> list[Path]:
    """Returns the images in files, folders with subfolders, and patterns such as ``photos/*.jpg``.

    In folders, they are the same images as in :class:`IndexedImages`. A pattern stands for all
    regular files that match.

    Raises:
        FileNotFoundError: if a place has no image.
    """
    found = []
    for place in map(Path, places):
        if place.is_dir():
            found += _images_in_folder(place)
        elif place.is_file():
            found.append(place)
        else:
            matches = sorted(map(Path, glob.glob(str(place), recursive=True)))
            files = [match for match in matches if match.is_file()]
            if not files:
                raise FileNotFoundError(
                    f'there is no image, folder or pattern with matches {place}'
                )
            found += files
    return found


def _images_in_folder(folder: Path) -> list[Path]:
    """Returns the images in a folder tree; raises FileNotFoundError if there are none."""
    scan = scan_folder(str(folder), show_progress=False)
    for name in scan.tars:
        scan.left_out.add(ARCHIVES, name)
    scan.left_out.warn(str(folder))
    if not scan.images:
        raise FileNotFoundError(
            f'the folder {folder} holds no images ({", ".join(IMAGE_EXTENSIONS)})'
        )
    return [folder / name for name in scan.images]


class ImageReader:
    """Reads one image as input of a model, ``dict(inputs=..., data_samples=...)``, not normalized.

    The image passes the test pipeline of the model's config. Without a config, it is resized to
    cover the backbone's ``img_size`` and center-cropped.

    Args:
        model: model with the sizes and channels.
        config: config of the model, if there is one.
        channel_order: order of arrays with three channels: ``'bgr'``, as in mmcv and mmpretrain, or
            ``'rgb'``. Files and PIL images have a known order.
    """

    def __init__(
        self, model: nn.Module, config: Config | None = None, channel_order: str = 'bgr'
    ) -> None:
        if channel_order not in ('bgr', 'rgb'):
            raise ValueError(f"channel_order={channel_order!r} is neither 'bgr' nor 'rgb'")
        backbone = model.backbone
        embed = getattr(backbone, 'patch_embed', None)
        projection = getattr(embed, 'projection', None)
        self.channels = getattr(projection, 'in_channels', 3)
        self.smallest = to_pair(getattr(projection, 'stride', 1))
        self.channel_order = channel_order
        pipeline = (config or {}).get('test_dataloader', {}).get('dataset', {}).get('pipeline')
        if pipeline is None:
            size: Any = getattr(backbone, 'img_size', None) or getattr(embed, 'img_size', 224)
            pipeline = [LoadCenterCrop(to_pair(size), crop_ratio=1), PackInputs()]
            if self.channels != 3:
                color = 'grayscale' if self.channels == 1 else 'unchanged'
                pipeline.insert(0, LoadImageFromFile(color_type=color))
        self.pipeline = [
            TRANSFORMS.build(step) if isinstance(step, dict) else step for step in pipeline
        ]

    def __call__(self, image: ImageLike) -> dict:
        """Reads a file, an array (H, W) or (H, W, C), or a PIL image.

        Raises:
            FileNotFoundError: if the file does not exist.
            ValueError: if the file is not an image, the image is smaller than a patch, or it has
                another number of channels than the model.
        """
        if isinstance(image, (str, Path)):
            name = str(image)
            if '://' not in name and not Path(name).is_file():
                raise FileNotFoundError(f'there is no image {name}')
            try:
                sample = Compose(self.pipeline)(dict(img_path=name))
            # LoadImageFromFile and its backends raise these.
            except (AssertionError, OSError, cv2.error) as error:
                raise ValueError(f'{name} cannot be read as an image ({error})') from error
        else:
            name = 'the image'
            array = self._array(image)
            shape = array.shape[:2]
            steps = [step for step in self.pipeline if not isinstance(step, LoadImageFromFile)]
            sample = Compose(steps)(dict(img=array, img_shape=shape, ori_shape=shape))
        self._check_channels(name, len(sample['inputs']))
        height, width = sample['data_samples'].ori_shape
        if height < self.smallest[0] or width < self.smallest[1]:
            raise ValueError(
                f'{name} is too small: {height} x {width} pixels are less than one patch of '
                f'{self.smallest[0]} x {self.smallest[1]}'
            )
        return sample

    def _array(self, image: np.ndarray | Image.Image) -> np.ndarray:
        """Returns the pixels (H, W) or (H, W, C), in the channel order of pipelines."""
        if isinstance(image, Image.Image):
            array = np.asarray(image.convert({1: 'L', 3: 'RGB'}.get(self.channels, image.mode)))
        elif isinstance(image, np.ndarray):
            array = image
        else:
            raise ValueError(
                f'an image is a path, an array or a PIL image, not {type(image).__name__}'
            )
        if array.ndim not in (2, 3) or array.size == 0:
            raise ValueError(
                f'the image has shape {array.shape}; an image is an array (H, W) or (H, W, '
                'channels)'
            )
        self._check_channels('the image', array.shape[2] if array.ndim == 3 else 1)
        is_rgb = isinstance(image, Image.Image) or self.channel_order == 'rgb'
        if is_rgb and array.shape[2:] == (3,):
            array = array[..., ::-1]
        return np.ascontiguousarray(array)

    def _check_channels(self, name: str, channels: int) -> None:
        """Raises ValueError if an image has another number of channels than the model."""
        if channels != self.channels:
            raise ValueError(
                f'{name} has {channels} channels, but the model takes images of {self.channels}'
            )


def to_pictures(
    inputs: Tensor,
    preprocessor: nn.Module,
    bands: Sequence[int] | None = None,
    pixel_range: tuple[float, float] = (0, 255),
) -> np.ndarray:
    """Converts normalized images (B, C, H, W) to RGB images, (B, H, W, 3) uint8.

    Args:
        inputs: (B, C, H, W), inputs of the model.
        preprocessor: data preprocessor of the model, whose normalization is reversed.
        bands: channels to show as red, green and blue. By default, one channel is shown as gray,
            three in their order, and of more than three the first three.
        pixel_range: pixel values, before normalization, that are shown as black and as white.

    Raises:
        ValueError: if ``bands`` are not three of the channels.
    """
    channels = inputs.shape[1]
    if bands is None:
        is_rgb = channels != 3 or converts_channels(preprocessor)
        bands = [min(i, channels - 1) for i in ((0, 1, 2) if is_rgb else (2, 1, 0))]
    if len(bands) != 3 or not all(0 <= band < channels for band in bands):
        raise ValueError(f'bands={tuple(bands)} are not three of the channels 0 to {channels - 1}')
    pixels = inputs.float()
    if normalizes(preprocessor):
        pixels = pixels * preprocessor.std + preprocessor.mean
    black, white = pixel_range
    pixels = (pixels[:, list(bands)] - black) * (255 / (white - black))
    return pixels.round().clamp(0, 255).byte().permute(0, 2, 3, 1).cpu().numpy()


def is_single(images: object) -> bool:
    """Returns whether this is one image, and not a folder or a list of images."""
    if isinstance(images, (str, Path)):
        return not Path(images).is_dir()
    return isinstance(images, (np.ndarray, Image.Image))


def as_list(images: ImageLike | Iterable[ImageLike]) -> list[ImageLike]:
    """Returns one image, a list of images, or the images in a folder, as a list."""
    if is_single(images):
        return [cast(ImageLike, images)]
    if isinstance(images, (str, Path)):
        return [*find_images(images)]
    return list(cast(Iterable[ImageLike], images))
