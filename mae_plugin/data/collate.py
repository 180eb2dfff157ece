"""Putting samples into batches, with an error that names the files that do not go together."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

from mmengine.dataset import default_collate
from mmengine.registry import FUNCTIONS
from torch import Tensor

from ..utils.printable import printable


class CheckedCollate:
    """Collates samples whose images have the same number of channels and number type.

    Args:
        collate: a function that collates, or its config.
    """

    def __init__(self, collate: Callable | dict = default_collate) -> None:
        if isinstance(collate, dict):
            settings = dict(collate)
            kind = settings.pop('type')
            collate = partial(FUNCTIONS.get(kind) if isinstance(kind, str) else kind, **settings)
        self.collate = collate

    def __call__(self, samples: Sequence[dict]) -> dict:
        """Collates.

        Raises:
            ValueError: if images differ in a way that keeps them from being one batch.
        """
        check_alike(samples, lambda image: (image.shape[:1], image.dtype))
        try:
            return self.collate(samples)
        # What torch raises at tensors of different shapes.
        except RuntimeError:
            check_alike(samples, lambda image: (image.shape, image.dtype))
            raise


def check_alike(samples: Sequence[dict], kind: Callable[[Tensor], object]) -> None:
    """Raises ValueError, which names two files, if images of samples are not all of one kind."""
    if not samples or not all(isinstance(sample, dict) for sample in samples):
        return
    images = [sample.get('inputs') for sample in samples]
    # Several views of an image are mmpretrain's matter.
    if not all(isinstance(image, Tensor) and image.ndim for image in images):
        return
    first = images[0]
    for sample, image in zip(samples, images, strict=True):
        if kind(image) != kind(first):
            raise ValueError(
                f'images differ and cannot be one batch: {_describe(samples[0], first)}, '
                f'{_describe(sample, image)}; '
                "bring them to one form, or read them with color_type='color'"
            )


def _describe(sample: dict, image: Tensor) -> str:
    path = getattr(sample.get('data_samples'), 'img_path', None) or 'an image without a name'
    return (
        f'{printable(path)} has the shape {tuple(image.shape)} (channels first) and {image.dtype}'
    )
