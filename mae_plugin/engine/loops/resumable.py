"""Shared behavior of the training loops: stateless seeding, position in the data, rolling back.

mmengine resumes at the start of an epoch, with newly seeded random generators. Here every seed is a
function of its purpose: a sample's augmentation depends on (seed, epoch, index, repeat), a step's
masks on (seed, iteration, rank), and the order of the data on (seed, epoch). The position in the
data counts samples over all ranks, so the number of data-loader workers makes no difference.

``loop.state`` is the RunState (``engine/state.py``). The loop updates the position in it at every
step, and RunStateHook writes the state to checkpoints and replaces it on resume.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from mmengine.dist import broadcast
from mmengine.logging import print_log
from mmengine.runner import BaseLoop, Runner

from ..hooks.run_state import RunStateHook
from ..state import RunState
from .dataloader import make_resumable
from .ready_loader import InexactLoader, config_of
from .seeding import seed_for, seed_generators
from .total_batch import TotalBatch, check_steps


class ResumableLoop(BaseLoop):
    """Base of both loops, placed before a training loop of mmengine.

    Attributes:
        endless: whether the data loader yields epoch after epoch without end.
        unit: unit of the length of training, ``'epoch'`` or ``'iter'``.
        state: state of the run beyond mmengine's own.
    """

    endless: bool
    unit: str
    state: RunState
    dataloader_iterator: Any = None
    # The checkpoint to roll back to after the present step.
    _requested: Path | None = None

    def __init__(self, runner: Runner, dataloader: dict | Iterable, *args, **kwargs) -> None:
        seed = _shared_seed(runner)
        # A data loader that is an object becomes a config if possible, and is adapted if not.
        if not isinstance(dataloader, dict):
            dataloader = config_of(dataloader) or InexactLoader(dataloader, seed)
        total_batch = None
        if isinstance(dataloader, dict):
            total_batch = TotalBatch.of(runner, dataloader)
            dataloader = make_resumable(dataloader, seed, self.endless, total_batch)
        super().__init__(runner, dataloader, *args, **kwargs)
        self.state = RunState(total_batch=total_batch)
        # With mmengine's CheckpointHook, nothing else would store the state.
        if not any(isinstance(hook, RunStateHook) for hook in runner.hooks):
            runner.register_hook(RunStateHook())
        sampler = self.dataloader.sampler
        self._seed = sampler.seed
        # Samples of one step over all ranks.
        self._step_size = self.dataloader.batch_sampler.batch_size * sampler.world_size
        if self.end < 1:
            raise ValueError(
                f'train_cfg.max_{self.unit}s={self.end} trains nothing; use a positive number'
            )
        if total_batch is not None:
            check_steps(self.dataloader)
            total_batch.scale_rate(runner)

    @property
    def end(self) -> int:
        """Number of epochs or iterations after which training ends."""
        return self._max_iters if self.unit == 'iter' else self._max_epochs

    @property
    def done(self) -> int:
        """Number of epochs or iterations that are trained."""
        return self._iter if self.unit == 'iter' else self._epoch

    @property
    def is_rolling_back(self) -> bool:
        """Whether a rollback is requested or in progress."""
        return self._requested is not None

    def roll_back(self, checkpoint: Path) -> None:
        """Requests a return to a checkpoint after the present step, and other data from there on.

        The data differ in their order, crops and masks, as the number of rollbacks is part of every
        seed.

        Args:
            checkpoint: a checkpoint of this run.
        """
        self._requested = checkpoint

    def run_iter(self, *args) -> None:
        """Runs one step, whose random numbers depend on seed, iteration and rank alone."""
        sampler = self.dataloader.sampler
        sampler.position += self._step_size
        # Before the step, as hooks save checkpoints at its end.
        self.state.epoch, self.state.samples = self._epoch, sampler.position
        seed_generators(seed_for('step', self._seed, self._iter, sampler.rank))
        super().run_iter(*args)

    def _roll_back_if_requested(self) -> bool:
        """Rolls back to the requested checkpoint; returns whether there was a request."""
        if self._requested is None:
            return False
        rollbacks = self.state.rollbacks + 1
        # This replaces the state by that of the checkpoint, which has a smaller number.
        self.runner.resume(str(self._requested))
        self.state.rollbacks = rollbacks
        # The optimizer wrapper counts steps, to find the last one of an update.
        self.runner.optim_wrapper.initialize_count_status(
            self.runner.model, self._iter, self._max_iters
        )
        self._go_to_position()
        self._requested = None
        return True

    def _go_to_position(self) -> None:
        """Sets the seed and the position of the sampler after a checkpoint was loaded."""
        sampler, state = self.dataloader.sampler, self.state
        # A checkpoint sets the runner's seed to its own.
        seed = _shared_seed(self.runner)
        if state.rollbacks:
            # Every seed that is derived from this one changes with each rollback. The words are
            # part of the seed, so runs resume exactly only if the words stay.
            seed = seed_for('gone back', seed, state.rollbacks)
        sampler.seed = self._seed = seed
        if self._iter > 0:
            # A checkpoint at the end of an epoch has the position of that epoch, and the next one
            # starts at 0.
            sampler.set_epoch(self._epoch)
            sampler.position = state.samples if state.epoch == self._epoch else 0

    def _check_rest(self) -> None:
        """Logs a warning if nothing is left to train after resuming.

        Raises:
            ValueError: if the checkpoint is trained beyond the end of training.
        """
        setting = f'train_cfg.max_{self.unit}s'
        if self.done > self.end:
            raise ValueError(
                f'the checkpoint is trained for {self.done} {self.unit}s already, beyond '
                f'{setting}={self.end}, so nothing would be trained; set {setting} to more than '
                f'{self.done}, or resume from an earlier checkpoint'
            )
        if self.done == self.end:
            print_log(
                f'The checkpoint is trained for all {self.done} {self.unit}s of {setting}, so no '
                f'step is left; increase {setting} to train longer.',
                logger='current',
                level=logging.WARNING,
            )

    def _validation_is_due(self) -> bool:
        """Returns whether to validate after the present epoch or iteration."""
        if self.runner.val_loop is None or self.done < self.val_begin:
            return False
        return self.done % self.val_interval == 0 or self.done == self.end

    def _complete_validation(self) -> None:
        """Validates after resuming, if a validation was due that the last run did not complete.

        A validation that improved nothing is repeated, as no checkpoint was written after it.
        """
        if self._iter == 0:
            return
        self._decide_current_val_interval()
        within_epoch = self.unit == 'epoch' and self.dataloader.sampler.position > 0
        is_completed = self.state.last_validation == (self._epoch, self._iter)
        if not within_epoch and not is_completed and self._validation_is_due():
            print_log(
                f'Validating after {self.unit} {self.done}, which the last run may not have '
                'completed.',
                'current',
            )
            self.runner.val_loop.run()


def _shared_seed(runner: Runner) -> int:
    """Returns the seed of the first rank, as ``diff_rank_seed`` gives each rank another."""
    seed = torch.tensor(runner.seed)
    broadcast(seed)
    return seed.item()
