"""BandDataPreprocessor: images of any number of channels, normalized on the device."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

import torch
from mmpretrain.models import ClsDataPreprocessor
from mmpretrain.structures import DataSample
from torch import Tensor, nn


class BandDataPreprocessor(ClsDataPreprocessor):
    """Normalizes images of any number of channels, for pre-training and for classification.

    mmpretrain's ``SelfSupDataPreprocessor`` takes means of 1 or 3 channels only. ``to_rgb``
    reverses the channels of three-channel images only.

    Pixels without data are set to the mean of each channel, which is 0 after normalization. Every
    data sample gets ``nodata``, (H, W) bool, by which :class:`MAE` leaves patches out of the loss.

    Args:
        mean: a value per channel, or one for all; None for no normalization.
        std: as ``mean``.
        nodata: pixels whose channels all have this value hold no data; with NaN, pixels of which
            any channel is NaN. If given, the padding of a batch holds no data either.
        non_blocking: whether copies to the device run concurrently with the computation.
        **kwargs: other arguments of ``ClsDataPreprocessor``.

    Raises:
        ValueError: if ``mean`` and ``std`` have different lengths, or ``std`` is not positive.
    """

    def __init__(
        self,
        mean: Sequence[float] | None = None,
        std: Sequence[float] | None = None,
        nodata: float | str | None = None,
        non_blocking: bool = False,
        **kwargs,
    ) -> None:
        counts = [None if values is None else len(values) for values in (mean, std)]
        if counts[0] != counts[1]:
            raise ValueError(
                f'mean={mean} and std={std} must have one value for every channel, or both be '
                'left out'
            )
        if std is not None and min(std) <= 0:
            raise ValueError(
                f'std={std} holds values that are not positive; leave constant channels out'
            )
        super().__init__(mean=mean, std=std, **kwargs)
        self._non_blocking = non_blocking
        self.nodata = None if nodata is None else float(nodata)

    def forward(self, data: dict, training: bool = False) -> dict:
        """Normalizes a batch.

        Args:
            data: ``inputs``, a tensor (B, C, H, W) or a list of (C, H, W) of any number type, and
                ``data_samples``.
            training: whether batch augmentations such as mixup are applied.

        Returns:
            ``inputs`` (B, C, H, W) float, and ``data_samples``.

        Raises:
            ValueError: for images of another number of channels than ``mean``.
        """
        inputs = self.cast_data(data['inputs'])
        batched = isinstance(inputs, Tensor)
        images = [inputs] if batched else inputs
        for image in images:
            if self._enable_normalize and len(self.mean) not in (1, image.shape[-3]):
                raise ValueError(
                    f'mean and std have {len(self.mean)} values, but the images have '
                    f'{image.shape[-3]} channels'
                )
        # Some integer types support neither comparison nor reversal.
        images = [image.float() for image in images]
        if self.nodata is None:
            return super().forward({**data, 'inputs': images[0] if batched else images}, training)

        nodata = [self._has_no_data(image) for image in images]
        images = [
            torch.where(empty, self._mean_of(image), image)
            for image, empty in zip(images, nodata, strict=True)
        ]
        inputs = images[0] if batched else images
        samples = data.get('data_samples') or [DataSample() for _ in inputs]
        masks = nodata[0] if batched else nodata  # per image (1, H, W)
        padded = _pad_to_one_size(masks, self.pad_size_divisor)
        for sample, empty in zip(samples, padded, strict=True):
            sample.nodata = empty[0]  # (H, W)
        return super().forward({**data, 'inputs': inputs, 'data_samples': samples}, training)

    def _has_no_data(self, images: Tensor) -> Tensor:
        """Marks the pixels without data: (..., C, H, W) -> (..., 1, H, W) bool."""
        if self.nodata != self.nodata:
            return images.isnan().any(dim=-3, keepdim=True)
        return (images == self.nodata).all(dim=-3, keepdim=True)

    def _mean_of(self, images: Tensor) -> Tensor | float:
        """Returns the values that normalization maps to 0, (C, 1, 1), in the order of the input."""
        if not self._enable_normalize:
            return images.new_zeros(())
        return self.mean.flip(0) if self.to_rgb and images.shape[-3] == 3 else self.mean


def _pad_to_one_size(masks: Iterable[Tensor], divisor: int) -> list[Tensor]:
    """Pads masks (1, H, W) with True at the bottom and right to one size, a multiple of divisor.

    mmengine's ``stack_batch`` computes the sizes with tensors and reads them back.
    """
    masks = list(masks)
    height = max(mask.shape[-2] for mask in masks)
    width = max(mask.shape[-1] for mask in masks)
    height = math.ceil(height / divisor) * divisor
    width = math.ceil(width / divisor) * divisor
    padded = []
    for mask in masks:
        right, bottom = width - mask.shape[-1], height - mask.shape[-2]
        padded.append(nn.functional.pad(mask, (0, right, 0, bottom), value=True))
    return padded
