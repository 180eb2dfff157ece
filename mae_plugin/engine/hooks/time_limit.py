"""Ends training after a set time, with a schedule of the learning rate by time."""

from __future__ import annotations

import time

import torch
from mmengine.dist import broadcast
from mmengine.hooks import Hook
from mmengine.runner import EpochBasedTrainLoop, Runner

from ...utils._compat.mmengine import end_training_after
from ..optim.schedule import warmup_cosine


class TimeLimitHook(Hook):
    """Ends training after a set time, at which the learning rate's cosine reaches zero.

    The learning rate follows elapsed time instead of iterations, so that slow and fast machines
    both end with an annealed rate; leave ``param_scheduler`` out of the config. The hook moves the
    end of training to the present iteration (or epoch, in an epoch-based loop), so the checkpoint
    hook saves the last state as usual.

    Args:
        minutes: time limit in minutes.
        warmup: share of the time in which the learning rate rises linearly from zero.

    Raises:
        ValueError: if ``minutes`` is not positive.
    """

    def __init__(self, minutes: float, warmup: float = 0.05) -> None:
        if minutes <= 0:
            raise ValueError(f'minutes={minutes} leaves no time to train; use a positive number')
        self.seconds = 60 * minutes
        self.warmup = warmup

    def before_train(self, runner: Runner) -> None:
        """Starts the clock."""
        self._start = time.monotonic()

    def before_train_iter(self, runner: Runner, batch_idx: int, data_batch=None) -> None:
        """Sets the learning rate of every parameter group."""
        # All ranks use the first rank's clock, so they have the same rates and stop together.
        elapsed = torch.tensor(time.monotonic() - self._start, dtype=torch.float64)
        broadcast(elapsed)
        self._elapsed = elapsed.item()
        factor = warmup_cosine(self._elapsed, self.warmup * self.seconds, self.seconds)
        # mmengine's schedulers, which would set `initial_lr`, are not in use.
        for group in runner.optim_wrapper.param_groups:
            group['lr'] = group.setdefault('initial_lr', group['lr']) * factor

    def after_train_iter(
        self, runner: Runner, batch_idx: int, data_batch=None, outputs=None
    ) -> None:
        """Ends training here if the time was over at the start of this step."""
        if self._elapsed >= self.seconds:
            loop = runner.train_loop
            by_epoch = isinstance(loop, EpochBasedTrainLoop)
            end_training_after(loop, 1 + (runner.epoch if by_epoch else runner.iter))
