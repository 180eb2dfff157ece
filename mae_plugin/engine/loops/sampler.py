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
from .seeding import seed_at, seed_generators


class SeededDataset(Dataset):
    """A dataset whose samples do not depend on what was loaded before them.

    Takes the addresses (index, epoch, repeat, seed) of :class:`ResumableSampler` and seeds all
    generators before it asks the dataset within. A plain index is passed on.

    Args:
        dataset: config of any dataset, or the dataset.
    """

    def __init__(self, dataset: dict | Dataset) -> None:
        self.dataset = DATASETS.build(dataset) if isinstance(dataset, dict) else dataset

    @property
    def metainfo(self) -> dict:
        """The dataset's own."""
        return self.dataset.metainfo

    def __repr__(self) -> str:
        return f'{type(self).__name__} of {self.dataset!r}'

    def full_init(self) -> None:
        """Reads the annotations of a dataset that puts it off."""
        if hasattr(self.dataset, 'full_init'):
            self.dataset.full_init()

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, address: int | tuple[int, int, int, int]) -> dict:
        if isinstance(address, int):
            return self.dataset[address]
        index, epoch, repeat, seed = address
        seed_generators(seed_at('sample', seed, epoch, index, repeat))
        # A broken image is one broken image, however many crops of it are asked for.
        with counting(repeat == 0):
            return self.dataset[index]


class ResumableSampler(Sampler):
    """Deals out the addresses (index, epoch, repeat, seed) of a dataset's samples to all ranks,
    from any position on.

    Every rank gets the same number: an epoch is filled up from its own beginning.

    Args:
        dataset: what to sample from.
        seed: the run's seed, the same on every rank.
        shuffle: a new order in every epoch, or always that of the dataset.
        endless: one epoch after the other without end; ``position`` then counts from the start of
            the first.
        repeats: how often in a row a sample is dealt out, at different addresses, so that an image
            is read and decoded once for several crops. An epoch stays as long as the dataset: it
            takes one in ``repeats`` of its samples, and so many epochs together take them all.
        multiple: samples over all ranks of which an epoch that ends holds a whole multiple; the
            rest is left out.

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
            raise ValueError(
                f'repeats={repeats} is out of range: it is how often in a row an image is used'
            )
        self.dataset = dataset
        self.seed = seed
        self.shuffle = shuffle
        self.endless = endless
        self.repeats = repeats
        self.size = len(dataset) // multiple * multiple
        """Samples of an epoch over all ranks, before it is filled up."""
        self.rank, self.world_size = get_dist_info()
        self.epoch = 0
        self.position = 0
        """Number of samples, over all ranks, that this epoch has given already."""

    def set_epoch(self, epoch: int) -> None:
        """Goes to the start of an epoch, or stays where it is if that is the present one."""
        if epoch != self.epoch:
            self.epoch, self.position = epoch, 0

    def __len__(self) -> int:
        """Samples of a whole epoch for this rank."""
        return -(-self.size // self.world_size)

    def __iter__(self) -> Iterator[tuple[int, int, int, int]]:
        if self.endless:
            epoch, position = divmod(self.position, len(self.dataset))
            later = chain.from_iterable(map(self._addresses, count(epoch + 1)))
        else:
            epoch, position = self.epoch, self.position
            missing = -max(0, self.size - position) % self.world_size
            later = islice(cycle(self._addresses(epoch)), missing)
            return islice(
                chain(self._addresses(epoch, position, self.size), later),
                self.rank,
                None,
                self.world_size,
            )
        return islice(
            chain(self._addresses(epoch, position), later), self.rank, None, self.world_size
        )

    def _addresses(
        self, epoch: int, position: int = 0, end: int | None = None
    ) -> Iterator[tuple[int, int, int, int]]:
        size = len(self.dataset)
        order = torch.arange(size)
        turn, part = divmod(epoch, self.repeats)
        if self.shuffle:
            generator = torch.Generator().manual_seed(seed_at('order', self.seed, turn))
            order = torch.randperm(size, generator=generator)
        needed = -(-size // self.repeats)
        order = order.roll(-part * needed)[:needed]
        # Ranks take turns, so one round has a sample for each. A list of a whole epoch would take
        # gigabytes.
        step = self.world_size if self.repeats > 1 else 2**16
        addresses = (
            (index, epoch, repeat, self.seed)
            for start in range(0, needed, step)
            for repeat in range(self.repeats)
            for index in order[start : start + step].tolist()
        )
        return islice(addresses, position, size if end is None else end)
