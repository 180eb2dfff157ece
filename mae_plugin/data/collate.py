"""Collation of samples into batches, with an error that names the files that differ."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

from mmengine.dataset import default_collate
from mmengine.registry import FUNCTIONS
from torch import Tensor

from ..utils.printable import printable


class CheckedCollate:
    """Collates samples, after a check that their images have equal channels and number type.

    Args:
        collate: function that collates, or its config.
    """

    def __init__(self, collate: Callable | dict = default_collate) -> None:
        if isinstance(collate, dict):
            settings = dict(collate)
            function = settings.pop('type')
            if isinstance(function, str):
                function = FUNCTIONS.get(function)
            collate = partial(function, **settings)
        self.collate = collate

    def __call__(self, samples: Sequence[dict]) -> dict:
        """Collates the samples into one batch.

        Raises:
            ValueError: if the images differ in channels, number type or size.
        """
        check_alike(samples, lambda image: (image.shape[:1], image.dtype))
        try:
            return self.collate(samples)
        # torch raises RuntimeError for tensors of different shapes.
        except RuntimeError:
            check_alike(samples, lambda image: (image.shape, image.dtype))
            raise


def check_alike(samples: Sequence[dict], kind: Callable[[Tensor], object]) -> None:
    """Raises ValueError, which names two files, if ``kind`` differs between images of samples."""
    if not samples or not all(isinstance(sample, dict) for sample in samples):
        return
    images = [sample.get('inputs') for sample in samples]
    # Samples with several views of an image hold lists here. mmpretrain collates them by itself.
    if not all(isinstance(image, Tensor) and image.ndim for image in images):
        return
    first = images[0]
    for sample, image in zip(samples, images, strict=True):
        if kind(image) != kind(first):
            raise ValueError(
                f'images differ and cannot be one batch: {_describe(samples[0], first)}, '
                f'{_describe(sample, image)}; '
                "convert them to one form, or read them with color_type='color'"
            )


def _describe(sample: dict, image: Tensor) -> str:
    """Returns a clause with the path, shape and number type of an image."""
    path = getattr(sample.get('data_samples'), 'img_path', None) or 'an image without a name'
    return (
        f'{printable(path)} has the shape {tuple(image.shape)} (channels first) and {image.dtype}'
    )
