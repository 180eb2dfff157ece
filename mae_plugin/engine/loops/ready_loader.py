"""Data loaders that are built already, in the place of their configs."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from types import SimpleNamespace

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

# What a DataLoader was made with, as far as its config would say it.
_SETTINGS = (
    'num_workers', 'collate_fn', 'pin_memory', 'timeout', 'multiprocessing_context', 'prefetch_factor',
    'persistent_workers', 'pin_memory_device',
)  # fmt: skip


def config_of(loader: object) -> dict | None:
    """Describes a DataLoader by the config that would build it, with its own dataset.

    Returns:
        The config; None for what is no DataLoader, or for one that no config makes: with an order
        of its own, or with workers that start otherwise than mmengine's.
    """
    if not isinstance(loader, DataLoader) or isinstance(loader.dataset, IterableDataset):
        return None
    batches = loader.batch_sampler
    # A batch sampler that was given has the sampler in use; the loader's own is not used then.
    shuffle = _shuffles(batches.sampler) if type(batches) is BatchSampler else None
    start = getattr(loader.worker_init_fn, 'func', loader.worker_init_fn)
    if shuffle is None or start not in (None, worker_init_fn):
        return None
    dataset = loader.dataset
    settings = {name: getattr(loader, name) for name in _SETTINGS if hasattr(loader, name)}
    return dict(
        settings,
        batch_size=batches.batch_size,
        drop_last=batches.drop_last,
        # A config is copied before it is built; a function in it, and so the dataset, is not.
        dataset=dict(type=lambda: dataset),
        sampler=dict(type='DefaultSampler', shuffle=shuffle),
    )


def _shuffles(sampler: Sampler) -> bool | None:
    """Whether a sampler shuffles; None for samplers that do more or less than that."""
    if isinstance(sampler, RandomSampler):
        plain = not sampler.replacement and sampler.num_samples == len(sampler.data_source)
        return True if plain else None
    if isinstance(sampler, SequentialSampler):
        return False
    if type(sampler) in (DefaultSampler, InfiniteSampler, DistributedSampler):
        return sampler.shuffle
    return None


class InexactLoader:
    """Lets a resumable loop go on in any iterable of batches, as far as that is possible from
    outside.

    The order and the augmentation of the samples are the iterable's own affair. After resuming, the
    batches that were trained on are loaded once more and dropped, so that an epoch keeps its number
    of steps.

    Args:
        loader: yields batches; its length is the number of steps of an epoch.
        seed: the seed of the run.

    Raises:
        ValueError: if there is no batch.
    """

    def __init__(self, loader: object, seed: int) -> None:
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
            'within an epoch is not '
            'exact. For exact resuming give the config of a data loader with DefaultSampler.',
            logger='current',
        )

    def __getattr__(self, name: str) -> object:
        """Gives what else the loader within has, such as its ``batch_size``."""
        if name == 'loader':
            raise AttributeError(name)
        return getattr(self.loader, name)

    def __len__(self) -> int:
        return len(self.loader)

    def __iter__(self) -> Iterator:
        batches = iter(self.loader)
        skipped = self.sampler.position // self.sampler.world_size
        # The number of steps of an epoch is only needed where more than one has gone by.
        for _ in islice(batches, skipped % len(self) if skipped else 0):
            pass
        return batches


class _StepCounter:
    """Takes the place of :class:`ResumableSampler`: counts steps, and passes the number of the
    epoch on.
    """

    endless = False

    def __init__(self, loader: object, seed: int) -> None:
        self._samplers = [
            getattr(loader, 'sampler', None),
            getattr(getattr(loader, 'batch_sampler', None), 'sampler', 0),
        ]
        self.seed = seed
        self.rank, self.world_size = get_dist_info()
        self.epoch = 0
        self.position = 0

    def set_epoch(self, epoch: int) -> None:
        """Goes to the start of an epoch, or stays where it is if that is the present one."""
        for sampler in self._samplers:
            if hasattr(sampler, 'set_epoch'):
                sampler.set_epoch(epoch)
        if epoch != self.epoch:
            self.epoch, self.position = epoch, 0
