"""Mean and standard deviation of every channel over a dataset, in one pass."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from rich.progress import track
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from .decoding.bands import has_no_data


class ChannelStatistics(NamedTuple):
    """Mean and standard deviation per channel, with the number of images and pixels used."""

    mean: list[float]
    std: list[float]
    images: int
    pixels: int


class _Moments(Dataset):
    """Number of pixels, mean and sum of squared deviations per channel, image by image."""

    def __init__(self, images: Dataset, nodata: float | None) -> None:
        self.images = images
        self.nodata = nodata

    def __getitem__(self, index: int) -> tuple[int, np.ndarray, np.ndarray]:
        img = np.atleast_3d(self.images[index]['img'])
        pixels = img.reshape(-1, img.shape[-1])  # (H * W, C)
        if self.nodata is not None:
            pixels = pixels[~has_no_data(pixels, self.nodata)]
        pixels = pixels.astype(np.float64)
        mean = pixels.mean(axis=0) if len(pixels) else np.zeros(img.shape[-1])  # (C,)
        return len(pixels), mean, np.square(pixels - mean).sum(axis=0)


def channel_statistics(
    images: Dataset,
    nodata: float | None = None,
    max_images: int | None = None,
    num_workers: int = 0,
    seed: int = 0,
) -> ChannelStatistics:
    """Computes mean and standard deviation of every channel, with a progress bar.

    The moments of single images are merged pairwise (Chan, Golub and LeVeque, 1979), so no sum of
    squares loses digits to a large mean.

    Args:
        images: dataset of dicts with ``img``, (H, W, C) of any number type.
        nodata: value of pixels without data, which are left out (see :func:`has_no_data`).
        max_images: number of images, chosen at random; None for all.
        num_workers: number of reading processes.
        seed: seed of the choice, and of any randomness in reading.

    Raises:
        ValueError: if there are no pixels, or images differ in the number of channels.
    """
    generator = torch.Generator().manual_seed(seed)
    order = torch.randperm(len(images), generator=generator)[:max_images].tolist()
    loader = DataLoader(
        _Moments(images, nodata),
        batch_size=None,
        sampler=order,
        num_workers=num_workers,
        generator=generator,
    )
    count = 0
    mean: Tensor | None = None
    squares: Tensor | None = None
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        for number, own, own_squares in track(loader, 'Reading images', total=len(order)):
            if mean is None:
                mean, squares = torch.zeros_like(own), torch.zeros_like(own)
            if len(own) != len(mean):
                raise ValueError(f'some images have {len(mean)} channels and others {len(own)}')
            if number:
                count += number
                difference = own - mean  # (C,)
                mean = mean + difference * number / count
                between = difference.square() * number * (count - number) / count
                squares = squares + own_squares + between
    if mean is None or squares is None or not count:
        raise ValueError('there are no pixels with data')
    return ChannelStatistics(mean.tolist(), (squares / count).sqrt().tolist(), len(order), count)
