"""Training that can be stopped at any step and resumed as if it never had been.

mmengine resumes at the start of an epoch, with random generators that begin anew. Here every random number has an
address instead of a history: a sample's augmentation is drawn from (seed, epoch, index), a step's masks from (seed,
iteration, rank), and the order of the data from (seed, epoch). What was trained on is counted in samples, so the
number of data-loader workers makes no difference.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import chain, count, cycle, islice

import numpy as np
import torch
from mmengine.dist import broadcast, get_dist_info
from mmengine.registry import DATASETS
from mmengine.runner import BaseLoop, EpochBasedTrainLoop, IterBasedTrainLoop, Runner
from torch.utils.data import Dataset, Sampler


def seed_at(*address: int | str) -> int:
    """The 64-bit seed that belongs to an address such as ``('sample', seed, epoch, index)``."""
    return int.from_bytes(hashlib.blake2b(repr(address).encode(), digest_size=8).digest(), 'little')


def seed_generators(seed: int) -> None:
    """Seeds Python's, numpy's and torch's generators, those of a GPU in use included."""
    random.seed(seed)
    np.random.seed(seed % 2**32)
    # Not torch.manual_seed: without a GPU in use it notes down a stack trace for each it might find later.
    torch.default_generator.manual_seed(seed)
    if torch.cuda.is_initialized() and not torch.cuda._is_in_bad_fork():
        torch.cuda.manual_seed(seed)


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Seeds the same generators for a while; then they go on where they were."""
    python, numpy = random.getstate(), np.random.get_state()
    with torch.random.fork_rng([torch.cuda.current_device()] if torch.cuda.is_initialized() else []):
        seed_generators(seed)
        try:
            yield
        finally:
            random.setstate(python)
            np.random.set_state(numpy)


class AddressedDataset(Dataset):
    """A dataset whose samples do not depend on what was loaded before them.

    Takes the addresses (index, epoch, repeat, seed) of :class:`ResumableSampler` and seeds all generators before it
    asks the dataset within. A plain index is passed on.

    Args:
        dataset: config of any dataset, or the dataset.
    """

    def __init__(self, dataset: dict | Dataset) -> None:
        self.dataset = DATASETS.build(dataset) if isinstance(dataset, dict) else dataset

    @property
    def metainfo(self) -> dict:
        """The dataset's own."""
        return self.dataset.metainfo

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
        return self.dataset[index]


class ResumableSampler(Sampler):
    """Deals out the addresses (index, epoch, repeat, seed) of a dataset's samples to all ranks, from any position on.

    Every rank gets the same number: an epoch is filled up from its own beginning.

    Args:
        dataset: what to sample from.
        seed: the run's seed, the same on every rank.
        shuffle: a new order in every epoch, or always that of the dataset.
        endless: one epoch after the other without end; ``position`` then counts from the start of the first.
        repeats: how often in a row a sample is dealt out, at different addresses, so that an image is read and decoded
            once for several crops. An epoch stays as long as the dataset: it takes one in ``repeats`` of its samples,
            and so many epochs together take them all.

    Raises:
        ValueError: if ``repeats`` is not positive.
    """

    def __init__(
        self, dataset: Dataset, seed: int, shuffle: bool = True, endless: bool = False, repeats: int = 1
    ) -> None:
        if repeats < 1:
            raise ValueError(f'repeats={repeats} is out of range: it is how often in a row an image is used')
        self.dataset = dataset
        self.seed = seed
        self.shuffle = shuffle
        self.endless = endless
        self.repeats = repeats
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
        return -(-len(self.dataset) // self.world_size)

    def __iter__(self) -> Iterator[tuple[int, int, int, int]]:
        if self.endless:
            epoch, position = divmod(self.position, len(self.dataset))
            later = chain.from_iterable(map(self._addresses, count(epoch + 1)))
        else:
            epoch, position = self.epoch, self.position
            missing = -max(0, len(self.dataset) - position) % self.world_size
            later = islice(cycle(self._addresses(epoch)), missing)
        return islice(chain(self._addresses(epoch, position), later), self.rank, None, self.world_size)

    def _addresses(self, epoch: int, position: int = 0) -> Iterator[tuple[int, int, int, int]]:
        size = len(self.dataset)
        order = torch.arange(size)
        turn, part = divmod(epoch, self.repeats)
        if self.shuffle:
            generator = torch.Generator().manual_seed(seed_at('order', self.seed, turn))
            order = torch.randperm(size, generator=generator)
        needed = -(-size // self.repeats)
        order = order.roll(-part * needed)[:needed]
        # Ranks take turns, so one round has a sample for each. A list of a whole epoch would take gigabytes.
        step = self.world_size if self.repeats > 1 else 2**16
        addresses = (
            (index, epoch, repeat, self.seed)
            for start in range(0, needed, step)
            for repeat in range(self.repeats)
            for index in order[start : start + step].tolist()
        )
        return islice(addresses, position, size)


class _Resumable(BaseLoop):
    """What both loops add to mmengine's: addressed data, seeded steps, and the position in the data."""

    endless: bool

    def __init__(self, runner: Runner, dataloader: dict, *args, **kwargs) -> None:
        super().__init__(runner, _with_addresses(dataloader, _shared_seed(runner), self.endless), *args, **kwargs)
        self._seed = self.dataloader.sampler.seed
        # What one step takes over all ranks.
        self._step_size = self.dataloader.batch_sampler.batch_size * self.dataloader.sampler.world_size

    def _go_to_position(self) -> None:
        """After a checkpoint was loaded: lets the data go on where that run was."""
        sampler = self.dataloader.sampler
        # A checkpoint brings its own seed with it.
        sampler.seed = self._seed = _shared_seed(self.runner)
        epoch, position = self.runner.message_hub.get_info('data_position', (0, 0))
        if self._iter > 0:
            sampler.set_epoch(self._epoch)
            sampler.position = position if epoch == self._epoch else 0

    def run_iter(self, *args) -> None:
        """One step, whose random numbers depend on seed, iteration and rank alone."""
        sampler = self.dataloader.sampler
        sampler.position += self._step_size
        self.runner.message_hub.update_info('data_position', (self._epoch, sampler.position))
        seed_generators(seed_at('step', self._seed, self._iter, sampler.rank))
        super().run_iter(*args)


class ResumableEpochLoop(_Resumable, EpochBasedTrainLoop):
    """mmengine's epoch-based loop that resumes exactly, from the middle of an epoch as well.

    Arguments are those of ``EpochBasedTrainLoop``. ``train_dataloader`` is the usual config with a DefaultSampler or
    InfiniteSampler, whose ``shuffle`` is kept; dataset and pipeline may be any.

    Raises:
        ValueError: for another sampler, or a data loader that is built already.
    """

    endless = False

    def run(self) -> torch.nn.Module:
        """Trains to the last epoch."""
        self._go_to_position()
        return super().run()

    def run_epoch(self) -> None:
        """Trains to the end of this epoch, from the step at which it was interrupted."""
        self.runner.call_hook('before_train_epoch')
        self.runner.model.train()
        # The sampler has been told the epoch by mmengine's hook; a config without that hook gets the same data.
        self.dataloader.sampler.set_epoch(self._epoch)
        first = self.dataloader.sampler.position // self._step_size
        for index, batch in enumerate(self.dataloader, start=first):
            self.run_iter(index, batch)
        self.runner.call_hook('after_train_epoch')
        self._epoch += 1


class ResumableIterLoop(_Resumable, IterBasedTrainLoop):
    """mmengine's iteration-based loop that resumes exactly and never pauses between epochs.

    Arguments are those of ``IterBasedTrainLoop``, data and errors as for :class:`ResumableEpochLoop`.
    """

    endless = True

    def run(self) -> torch.nn.Module:
        """Trains to the last iteration."""
        self._go_to_position()
        if self._iter > 0:
            # mmengine's own would load everything up to here once more.
            self.dataloader_iterator = iter(self.dataloader)
        self.runner.call_hook('before_train')
        self.runner.call_hook('before_train_epoch')
        while self._iter < self._max_iters and not self.stop_training:
            self.runner.model.train()
            self.run_iter(next(self.dataloader_iterator))
            self._decide_current_val_interval()
            due = self._iter % self.val_interval == 0 or self._iter == self._max_iters
            if self.runner.val_loop is not None and self._iter >= self.val_begin and due:
                self.runner.val_loop.run()
        self.runner.call_hook('after_train_epoch')
        self.runner.call_hook('after_train')
        return self.runner.model


def _shared_seed(runner: Runner) -> int:
    """The first rank's seed; mmengine may have given every rank another (``diff_rank_seed``)."""
    seed = torch.tensor(runner.seed)
    broadcast(seed)
    return seed.item()


def _with_addresses(dataloader: dict, seed: int, endless: bool) -> dict:
    """The config of a data loader with its dataset and sampler replaced by those above."""
    if not isinstance(dataloader, dict):
        raise ValueError(f'train_dataloader is {type(dataloader).__name__}; a resumable loop needs its config, a dict')
    sampler = dataloader['sampler']
    kind = sampler['type'] if isinstance(sampler['type'], str) else sampler['type'].__name__
    if kind not in ('DefaultSampler', 'InfiniteSampler') or dataloader.get('batch_sampler'):
        raise ValueError(
            f'a resumable loop cannot start within the order of {dataloader.get("batch_sampler") or kind}; use '
            "DefaultSampler, or mmengine's own loop with train_cfg.type=EpochBasedTrainLoop"
        )
    return {
        **dataloader,
        'dataset': dict(type=AddressedDataset, dataset=dataloader['dataset']),
        'sampler': dict(
            type=ResumableSampler,
            seed=seed,
            endless=endless,
            **{name: sampler[name] for name in ('shuffle', 'repeats') if name in sampler},
        ),
    }
