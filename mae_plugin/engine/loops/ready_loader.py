"""Data loaders that are objects instead of configs."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from types import SimpleNamespace
from typing import Any

from mmengine.dataset import DefaultSampler, InfiniteSampler, worker_init_fn
from mmengine.dist import get_dist_info
from mmengine.logging import print_log
from torch.utils.data import (
    BatchSampler,
    DataLoader,
    DistributedSampler,
    IterableDataset,
    RandomSampler,
    Sampler,
    SequentialSampler,
)

# Arguments of a DataLoader that a config of it holds.
_SETTINGS = (
    'num_workers',
    'collate_fn',
    'pin_memory',
    'timeout',
    'multiprocessing_context',
    'prefetch_factor',
    'persistent_workers',
    'pin_memory_device',
)


def config_of(loader: object) -> dict | None:
    """Returns the config that would build a DataLoader, with its own dataset.

    Returns:
        The config. None for other objects, and for a DataLoader that no config builds: one with its
        own sampler, or with a ``worker_init_fn`` other than mmengine's.
    """
    if not isinstance(loader, DataLoader) or isinstance(loader.dataset, IterableDataset):
        return None
    batches = loader.batch_sampler
    # The sampler in use is that of the batch sampler, which the caller may have supplied.
    shuffle = _shuffles(batches.sampler) if type(batches) is BatchSampler else None
    init_fn = getattr(loader.worker_init_fn, 'func', loader.worker_init_fn)
    if shuffle is None or init_fn not in (None, worker_init_fn):
        return None
    dataset = loader.dataset
    settings = {name: getattr(loader, name) for name in _SETTINGS if hasattr(loader, name)}
    return dict(
        settings,
        batch_size=batches.batch_size,
        drop_last=batches.drop_last,
        # mmengine copies a config before it builds it. A function, and so the dataset, is shared.
        dataset=dict(type=lambda: dataset),
        sampler=dict(type='DefaultSampler', shuffle=shuffle),
    )


def _shuffles(sampler: Sampler) -> bool | None:
    """Returns whether a sampler shuffles; None for samplers that do anything else."""
    if isinstance(sampler, RandomSampler):
        plain = not sampler.replacement and sampler.num_samples == len(sampler.data_source)
        return True if plain else None
    if isinstance(sampler, SequentialSampler):
        return False
    if type(sampler) in (DefaultSampler, InfiniteSampler, DistributedSampler):
        return sampler.shuffle
    return None


class InexactLoader:
    """Adapts any iterable of batches to the resumable loops.

    The iterable determines the order and the augmentation of its samples. After resuming, the
    batches that are trained already are loaded once more and dropped, so that an epoch keeps its
    number of steps.

    Args:
        loader: iterable of batches, whose length is the number of steps per epoch.
        seed: seed of the run.

    Raises:
        ValueError: if the iterable has no batch.
    """

    def __init__(self, loader: Any, seed: int) -> None:
        if hasattr(loader, '__len__') and len(loader) == 0:
            raise ValueError(
                f'train_dataloader is a {type(loader).__name__} without a batch, so nothing would '
                'be trained'
            )
        self.loader = loader
        self.dataset = getattr(loader, 'dataset', None)
        self.sampler = _StepCounter(loader, seed)
        # Positions count steps over all ranks.
        self.batch_sampler = SimpleNamespace(batch_size=1)
        print_log(
            f'train_dataloader is a {type(loader).__name__} with an order of its own; resuming '
            'within an epoch is not exact. For exact resuming use the config of a data loader with '
            'DefaultSampler.',
            logger='current',
        )

    def __getattr__(self, name: str) -> object:
        """Returns any other attribute of the wrapped loader, such as its ``batch_size``."""
        # Copying reads attributes before `loader` is set, which would recurse without end.
        if name == 'loader':
            raise AttributeError(name)
        return getattr(self.loader, name)

    def __len__(self) -> int:
        return len(self.loader)

    def __iter__(self) -> Iterator:
        batches = iter(self.loader)
        skipped = self.sampler.position // self.sampler.world_size
        # The loader may have no length, which is only needed after the first step.
        skipped = skipped % len(self) if skipped else 0
        for _ in islice(batches, skipped):
            pass
        return batches


class _StepCounter:
    """Replaces :class:`ResumableSampler`: counts steps, and passes on the epoch."""

    endless = False

    def __init__(self, loader: object, seed: int) -> None:
        batch_sampler = getattr(loader, 'batch_sampler', None)
        self._samplers = [
            getattr(loader, 'sampler', None),
            getattr(batch_sampler, 'sampler', None),
        ]
        self.seed = seed
        self.rank, self.world_size = get_dist_info()
        self.epoch = 0
        self.position = 0

    def set_epoch(self, epoch: int) -> None:
        """Moves to the start of an epoch; the present epoch keeps its position."""
        for sampler in self._samplers:
            if sampler is not None and hasattr(sampler, 'set_epoch'):
                sampler.set_epoch(epoch)
        if epoch != self.epoch:
            self.epoch, self.position = epoch, 0
