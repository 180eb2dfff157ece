"""Dataset and sampler whose samples depend on (seed, epoch, index, repeat) alone.

A resumed run therefore sees the same data on any number of workers.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain, count, cycle, islice

import torch
from mmengine.dist import get_dist_info
from mmengine.registry import DATASETS
from torch.utils.data import Dataset, Sampler

from ...data.skipped_images import counting
from .seeding import seed_for, seed_generators

# A sample's index, epoch, repeat and the run's seed.
SampleKey = tuple[int, int, int, int]

# Indices that are converted to Python numbers at once; those of a whole epoch would take gigabytes.
_CHUNK = 2**16


class SeededDataset(Dataset):
    """Wraps a dataset so that a sample does not depend on the samples loaded before it.

    Its index is a key (index, epoch, repeat, seed) of :class:`ResumableSampler`. All random
    generators are seeded by the key before the wrapped dataset loads the sample. A plain index is
    passed on.

    Args:
        dataset: a dataset, or the config of one.
    """

    def __init__(self, dataset: dict | Dataset) -> None:
        self.dataset = DATASETS.build(dataset) if isinstance(dataset, dict) else dataset

    @property
    def metainfo(self) -> dict:
        """Meta information of the wrapped dataset."""
        return self.dataset.metainfo

    def __repr__(self) -> str:
        return f'{type(self).__name__} of {self.dataset!r}'

    def full_init(self) -> None:
        """Reads the annotations of a dataset with lazy initialization."""
        if hasattr(self.dataset, 'full_init'):
            self.dataset.full_init()

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, key: int | SampleKey) -> dict:
        if isinstance(key, int):
            return self.dataset[key]
        index, epoch, repeat, seed = key
        seed_generators(seed_for('sample', seed, epoch, index, repeat))
        # A broken image counts once, however many crops of it are loaded.
        with counting(repeat == 0):
            return self.dataset[index]


class ResumableSampler(Sampler):
    """Yields the keys (index, epoch, repeat, seed) of a dataset's samples from any position.

    All ranks get the same number of samples: an epoch is padded with samples from its beginning.

    Args:
        dataset: dataset to sample from.
        seed: seed of the run, the same on all ranks.
        shuffle: whether every epoch has a new order, or that of the dataset.
        endless: whether epoch follows epoch without end. ``position`` then counts from the start
            of the first one.
        repeats: number of consecutive keys per sample, so that an image is read and decoded once
            for several crops. An epoch stays as long as the dataset: it takes one in ``repeats``
            samples, and ``repeats`` consecutive epochs take all of them.
        multiple: an epoch that ends holds a multiple of this number of samples over all ranks; the
            rest is dropped.

    Attributes:
        size: samples of an epoch over all ranks, before padding.
        position: samples, over all ranks, that the present epoch has yielded.

    Raises:
        ValueError: if ``repeats`` is not positive.
    """

    def __init__(
        self,
        dataset: Dataset,
        seed: int,
        shuffle: bool = True,
        endless: bool = False,
        repeats: int = 1,
        multiple: int = 1,
    ) -> None:
        if repeats < 1:
            raise ValueError(f'repeats={repeats} is out of range; use 1 for one crop per image')
        self.dataset = dataset
        self.seed = seed
        self.shuffle = shuffle
        self.endless = endless
        self.repeats = repeats
        self.size = len(dataset) // multiple * multiple
        self.rank, self.world_size = get_dist_info()
        self.epoch = 0
        self.position = 0

    def set_epoch(self, epoch: int) -> None:
        """Moves to the start of an epoch; the present epoch keeps its position."""
        if epoch != self.epoch:
            self.epoch, self.position = epoch, 0

    def __len__(self) -> int:
        """Returns the samples of a whole epoch on this rank."""
        return -(-self.size // self.world_size)

    def __iter__(self) -> Iterator[SampleKey]:
        if self.endless:
            epoch, position = divmod(self.position, len(self.dataset))
            later = chain.from_iterable(map(self._keys, count(epoch + 1)))
            keys = chain(self._keys(epoch, position), later)
        else:
            # The number of samples by which the rest of the epoch is padded.
            missing = -max(0, self.size - self.position) % self.world_size
            padding = islice(cycle(self._keys(self.epoch)), missing)
            keys = chain(self._keys(self.epoch, self.position, self.size), padding)
        return islice(keys, self.rank, None, self.world_size)

    def _keys(self, epoch: int, position: int = 0, end: int | None = None) -> Iterator[SampleKey]:
        """Yields the keys of an epoch over all ranks, from a position to an end."""
        size = len(self.dataset)
        order = torch.arange(size)
        # `repeats` epochs share one order, and each takes its own part of it.
        turn, part = divmod(epoch, self.repeats)
        if self.shuffle:
            generator = torch.Generator().manual_seed(seed_for('order', self.seed, turn))
            order = torch.randperm(size, generator=generator)
        needed = -(-size // self.repeats)
        order = order.roll(-part * needed)[:needed]
        # The ranks take every `world_size`-th key, so a chunk of that many images keeps all crops
        # of an image on one rank.
        chunk = self.world_size if self.repeats > 1 else _CHUNK
        keys = (
            (index, epoch, repeat, self.seed)
            for start in range(0, needed, chunk)
            for repeat in range(self.repeats)
            for index in order[start : start + chunk].tolist()
        )
        return islice(keys, position, size if end is None else end)
