"""Training against the clock."""

from __future__ import annotations

import time

import torch
from mmengine.dist import broadcast
from mmengine.hooks import Hook
from mmengine.runner import EpochBasedTrainLoop, Runner

from ...utils._compat.mmengine import end_training_after
from ..optim.schedule import warmup_cosine


class TimeLimitHook(Hook):
    """Ends training after a set time, with the learning rate's cosine spent by then.

    The learning rate follows elapsed time instead of iterations, so that a slow machine and a fast
    one both end annealed; leave ``param_scheduler`` out of the config. The end of training is moved
    to the current iteration (or epoch, in an epoch-based loop), so the checkpoint hook saves the
    last state as at any other end.

    Args:
        minutes: the limit.
        warmup: share of the time in which the learning rate rises linearly from zero.

    Raises:
        ValueError: if ``minutes`` is not positive.
    """

    def __init__(self, minutes: float, warmup: float = 0.05) -> None:
        if minutes <= 0:
            raise ValueError(f'minutes={minutes} leaves no time to train; give a positive number')
        self.seconds = 60 * minutes
        self.warmup = warmup

    def before_train(self, runner: Runner) -> None:
        """Starts the clock."""
        self._start = time.monotonic()

    def before_train_iter(self, runner: Runner, batch_idx: int, data_batch=None) -> None:
        """Sets the learning rate of every parameter group."""
        # By the clock of the first process, so that all end at the same step and never differ in
        # their rates.
        elapsed = torch.tensor(time.monotonic() - self._start, dtype=torch.float64)
        broadcast(elapsed)
        self._elapsed = elapsed.item()
        factor = warmup_cosine(self._elapsed, self.warmup * self.seconds, self.seconds)
        for group in runner.optim_wrapper.param_groups:
            group['lr'] = group.setdefault('initial_lr', group['lr']) * factor

    def after_train_iter(
        self, runner: Runner, batch_idx: int, data_batch=None, outputs=None
    ) -> None:
        """Moves the end of training here if the time was up at the start of this step."""
        if self._elapsed >= self.seconds:
            by_epoch = isinstance(runner.train_loop, EpochBasedTrainLoop)
            done = runner.epoch if by_epoch else runner.iter
            end_training_after(runner.train_loop, done + 1)
