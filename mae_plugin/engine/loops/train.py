"""Training that can be stopped at any step and resumed as if it never had been.

mmengine resumes at the start of an epoch, with random generators that begin anew. Here every random
number has an address instead of a history: a sample's augmentation is drawn from (seed, epoch,
index), a step's masks from (seed, iteration, rank), and the order of the data from (seed, epoch).
What was trained on is counted in samples, so the number of data-loader workers makes no difference.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from mmengine.dist import broadcast
from mmengine.logging import print_log
from mmengine.runner import BaseLoop, EpochBasedTrainLoop, IterBasedTrainLoop, Runner

from ...data.collate import CheckedCollate
from ...utils._compat.mmengine import loader_iterator
from ...utils._compat.torch import kill_loader_workers, loader_workers
from ..hooks.preemption import obey_parent_alone
from ..optim.schedule import end_schedules
from .ready_loader import InexactLoader, config_of
from .sampler import ResumableSampler, SeededDataset
from .seeding import seed_at, seed_generators
from .total_batch import EffectiveBatch, check_steps
from .worker_errors import find_cause


class _Resumable(BaseLoop):
    """What both loops add to mmengine's: addressed data, seeded steps, the position in the data,
    and going back.
    """

    endless: bool
    unit: str
    """What training is counted in: ``'epoch'`` or ``'iter'``."""
    dataloader_iterator: Iterator | None = None

    go_back_to: Path | None = None
    """Set by a hook: the checkpoint from which to go on, with other data, after the present
    step.
    """

    def __init__(self, runner: Runner, dataloader: dict | Iterable, *args, **kwargs) -> None:
        seed = _shared_seed(runner)
        if not isinstance(dataloader, dict):
            dataloader = config_of(dataloader) or InexactLoader(dataloader, seed)
        batch = None
        if isinstance(dataloader, dict):
            batch = EffectiveBatch.of(runner, dataloader)
            dataloader = _with_addresses(dataloader, seed, self.endless, batch)
        super().__init__(runner, dataloader, *args, **kwargs)
        self.batch = batch
        self._seed = self.dataloader.sampler.seed
        # What one step takes over all ranks.
        self._step_size = (
            self.dataloader.batch_sampler.batch_size * self.dataloader.sampler.world_size
        )
        if self.end < 1:
            raise ValueError(
                f'train_cfg.max_{self.unit}s={self.end} trains nothing; give a positive number'
            )
        if batch is not None:
            check_steps(self.dataloader)
            batch.scale_rate(runner)

    @property
    def end(self) -> int:
        """The number of epochs or iterations after which training is done."""
        return self._max_iters if self.unit == 'iter' else self._max_epochs

    @property
    def done(self) -> int:
        """The number of epochs or iterations that are trained."""
        return self._iter if self.unit == 'iter' else self._epoch

    def _check_rest(self) -> None:
        """Logs a warning if nothing is left to train after resuming.

        Raises:
            ValueError: if the end of training lies before what is trained.
        """
        setting = f'train_cfg.max_{self.unit}s'
        if self.done > self.end:
            raise ValueError(
                f'the checkpoint is trained for {self.done} {self.unit}s already, beyond '
                f'{setting}={self.end}, so '
                f'nothing would be trained; set {setting} to more than {self.done}, or resume '
                'from an earlier one'
            )
        if self.done == self.end:
            print_log(
                f'The checkpoint is trained for all {self.done} {self.unit}s of {setting}, so no '
                'step is left; set '
                f'{setting} to more to train on.',
                logger='current',
                level=logging.WARNING,
            )

    def _validation_is_due(self) -> bool:
        loop = self.runner.val_loop
        due = self.done % self.val_interval == 0 or self.done == self.end
        return loop is not None and self.done >= self.val_begin and due

    def _make_up_for_validation(self) -> None:
        """After resuming: validates if that was due when the checkpoint had been written, and did
        not come to its end.

        A validation that improved nothing is done once more, as nothing was written after it.
        """
        if self._iter == 0:
            return
        self._decide_current_val_interval()
        between = self.unit == 'epoch' and self.dataloader.sampler.position > 0
        done = tuple(self.runner.message_hub.get_info('last_validated_at', ())) == (
            self._epoch,
            self._iter,
        )
        if not between and not done and self._validation_is_due():
            print_log(
                f'Validating after {self.unit} {self.done}, which the last run may not have ended.',
                'current',
            )
            self.runner.val_loop.run()

    def _go_to_position(self) -> None:
        """After a checkpoint was loaded: lets the data go on where that run was."""
        sampler = self.dataloader.sampler
        hub = self.runner.message_hub
        # A checkpoint brings its own seed with it; each going back moves every address that follows
        # from it.
        seed, times = _shared_seed(self.runner), hub.get_info('times_gone_back', 0)
        sampler.seed = self._seed = seed_at('gone back', seed, times) if times else seed
        epoch, position = hub.get_info('data_position', (0, 0))
        if self._iter > 0:
            sampler.set_epoch(self._epoch)
            sampler.position = position if epoch == self._epoch else 0

    def _gone_back(self) -> bool:
        """Goes back if a hook has asked for it, and says whether it did."""
        if self.go_back_to is None:
            return False
        hub = self.runner.message_hub
        times = hub.get_info('times_gone_back', 0) + 1
        self.runner.resume(str(self.go_back_to))
        hub.update_info('times_gone_back', times)
        self.runner.optim_wrapper.initialize_count_status(
            self.runner.model, self._iter, self._max_iters
        )
        self._go_to_position()
        self.go_back_to = None
        return True

    @contextmanager
    def _ending_workers(self) -> Iterator[None]:
        """Ends the data-loader workers at once when an error ends the training, and raises what
        ended a worker.

        torch ends workers by locks that a killed worker may hold for ever: the run would hang, and
        other ranks with it.
        """
        try:
            yield
        except BaseException as error:
            # mmengine's iteration-based loop wraps the loader's own.
            batches = loader_iterator(self.dataloader_iterator)
            cause = find_cause(error, loader_workers(batches))
            kill_loader_workers(batches)
            if cause is not None:
                raise cause from error
            raise

    def run_iter(self, *args) -> None:
        """One step, whose random numbers depend on seed, iteration and rank alone."""
        sampler = self.dataloader.sampler
        sampler.position += self._step_size
        self.runner.message_hub.update_info('data_position', (self._epoch, sampler.position))
        seed_generators(seed_at('step', self._seed, self._iter, sampler.rank))
        super().run_iter(*args)


class ResumableEpochLoop(_Resumable, EpochBasedTrainLoop):
    """mmengine's epoch-based loop that resumes exactly, from the middle of an epoch as well.

    Arguments are those of ``EpochBasedTrainLoop``. ``train_dataloader`` is the usual config with a
    DefaultSampler or InfiniteSampler, whose ``shuffle`` is kept; dataset and pipeline may be any.
    With gradient accumulation an epoch consists of whole updates. A DataLoader that is built
    already is built anew with these; any other iterable of batches is taken as it is, and resumed
    without exactness (:class:`InexactLoader`).

    Raises:
        ValueError: for another sampler in the config.
    """

    endless = False
    unit = 'epoch'

    def run(self) -> torch.nn.Module:
        """Trains to the last epoch."""
        self._check_rest()
        self._go_to_position()
        with self._ending_workers():
            self.runner.call_hook('before_train')
            self._make_up_for_validation()
            while self._epoch < self._max_epochs and not self.stop_training:
                self.run_epoch()
                self._decide_current_val_interval()
                if self._validation_is_due():
                    self.runner.val_loop.run()
            self.runner.call_hook('after_train')
        return self.runner.model

    def run_epoch(self) -> None:
        """Trains to the end of an epoch, from the step at which it was interrupted."""
        while not self._completes_epoch():
            pass
        self._epoch += 1

    def _completes_epoch(self) -> bool:
        """Trains to the end of the epoch, unless a hook sends training back."""
        self.runner.call_hook('before_train_epoch')
        self.runner.model.train()
        # The sampler has been told the epoch by mmengine's hook; a config without that hook gets
        # the same data.
        self.dataloader.sampler.set_epoch(self._epoch)
        first = self.dataloader.sampler.position // self._step_size
        self.dataloader_iterator = iter(self.dataloader)
        for index, batch in enumerate(self.dataloader_iterator, start=first):
            self.run_iter(index, batch)
            if self._gone_back():
                return False
        self.runner.call_hook('after_train_epoch')
        return True


class ResumableIterLoop(_Resumable, IterBasedTrainLoop):
    """mmengine's iteration-based loop that resumes exactly and never pauses between epochs.

    Arguments are those of ``IterBasedTrainLoop``, data and errors as for
    :class:`ResumableEpochLoop`.
    """

    endless = True
    unit = 'iter'

    def __init__(self, runner: Runner, dataloader: dict, *args, **kwargs) -> None:
        super().__init__(runner, dataloader, *args, **kwargs)
        runner.param_schedulers = end_schedules(
            runner.param_schedulers, self._max_iters, len(self.dataloader)
        )

    def run(self) -> torch.nn.Module:
        """Trains to the last iteration."""
        self._check_rest()
        self._go_to_position()
        with self._ending_workers():
            return self._run()

    def _run(self) -> torch.nn.Module:
        if self._iter > 0:
            # mmengine's own would load everything up to here once more.
            self.dataloader_iterator = iter(self.dataloader)
        self.runner.call_hook('before_train')
        self.runner.call_hook('before_train_epoch')
        self._make_up_for_validation()
        while self._iter < self._max_iters and not self.stop_training:
            self.runner.model.train()
            self.run_iter(next(self.dataloader_iterator))
            if self._gone_back():
                self.dataloader_iterator = iter(self.dataloader)
                continue
            self._decide_current_val_interval()
            if self._validation_is_due():
                self.runner.val_loop.run()
        self.runner.call_hook('after_train_epoch')
        self.runner.call_hook('after_train')
        return self.runner.model


def _shared_seed(runner: Runner) -> int:
    """The first rank's seed; mmengine may have given every rank another (``diff_rank_seed``)."""
    seed = torch.tensor(runner.seed)
    broadcast(seed)
    return seed.item()


def _with_addresses(dataloader: dict, seed: int, endless: bool, batch: EffectiveBatch) -> dict:
    """The config of a data loader with its dataset and sampler replaced by those above."""
    # Epochs of whole updates, so that their number does not depend on how the ranks share one.
    whole = dataloader.get('drop_last') or batch.accumulate > 1
    sampler = dataloader['sampler']
    kind = sampler['type'] if isinstance(sampler['type'], str) else sampler['type'].__name__
    if kind not in ('DefaultSampler', 'InfiniteSampler') or dataloader.get('batch_sampler'):
        raise ValueError(
            'a resumable loop cannot start within the order of '
            f'{dataloader.get("batch_sampler") or kind}; use '
            "DefaultSampler, or mmengine's own loop with train_cfg.type=EpochBasedTrainLoop"
        )
    return {
        'pin_memory': torch.cuda.is_available(),
        **dataloader,
        'dataset': dict(type=SeededDataset, dataset=dataloader['dataset']),
        'sampler': dict(
            type=ResumableSampler,
            seed=seed,
            endless=endless,
            multiple=batch.total if whole else 1,
            **{name: sampler[name] for name in ('shuffle', 'repeats') if name in sampler},
        ),
        'collate_fn': CheckedCollate(dataloader.get('collate_fn', dict(type='pseudo_collate'))),
        'worker_init_fn': dict(type=obey_parent_alone),
    }
