"""Rolls training back when non-finite updates persist."""

from __future__ import annotations

import logging
import sys
from pathlib import Path

import torch
from mmengine.dist import all_gather_object, all_reduce, broadcast_object_list, is_main_process
from mmengine.hooks import Hook
from mmengine.logging import print_log
from mmengine.runner import Runner

from ...utils._compat.mmengine import accumulative_counts
from ..optim.skip_updates import SkipNonFiniteUpdates, is_finite
from ..resume.find import newest_whole_checkpoint
from ..resume.work_dir import CheckpointPaths


class NaNGuardHook(Hook):
    """Rolls training back to the last good checkpoint when all recent updates were skipped.

    :class:`AutoAmpOptimWrapper` skips non-finite updates. Every ``patience`` steps this hook checks
    how many were skipped in a row, and whether the weights are finite. If all of the last
    ``patience`` updates were skipped, training continues from the newest checkpoint before them,
    with other crops, masks and order of the data. If training was rolled back to that checkpoint
    before, or there is none, the run ends with an error. The hook needs one of the resumable loops.

    Args:
        patience: number of consecutive skipped updates that is too many. It must exceed the few
            with which a loss scaler of float16 finds its scale.

    Raises:
        ValueError: if ``patience`` is not positive.
    """

    def __init__(self, patience: int = 50) -> None:
        if patience < 1:
            raise ValueError(f'patience={patience} would stop every run; use a positive number')
        self.patience = patience
        self._skipped_before = 0
        self._tried: Path | None = None

    def after_train_iter(
        self, runner: Runner, batch_idx: int, data_batch=None, outputs: dict | None = None
    ) -> None:
        """Checks every ``patience`` iterations how many updates were skipped."""
        wrapper = runner.optim_wrapper
        if not isinstance(wrapper, SkipNonFiniteUpdates):
            return
        if not self.every_n_train_iters(runner, self.patience):
            return
        in_a_row, total, bad_losses = wrapper.read_skipped()
        if total > self._skipped_before:
            self._log(
                f'{total - self._skipped_before} updates up to step {runner.iter + 1} were not '
                'finite, and skipped.'
            )
        self._skipped_before = total
        # Buffers, such as those of BatchNorm, may differ between ranks, and ranks must roll back
        # together.
        trouble = torch.tensor(float(in_a_row >= self.patience or not is_finite(runner.model)))
        all_reduce(trouble, 'max')
        if trouble:
            self._roll_back(runner, in_a_row, bad_losses)

    def _roll_back(self, runner: Runner, in_a_row: int, bad_losses: int) -> None:
        """Rolls back to the newest checkpoint before the skipped updates, or ends the run."""
        trouble = self._describe(runner, in_a_row, bad_losses)
        # A checkpoint from after the first skipped update holds the same weights.
        first_skipped = runner.iter + 1 - in_a_row * accumulative_counts(runner.optim_wrapper)
        found: list[Path | None] = [None]
        if is_main_process():
            found = [newest_whole_checkpoint(self._paths(runner), first_skipped)]
        # All ranks load the same checkpoint.
        broadcast_object_list(found)
        (checkpoint,) = found
        loop = runner.train_loop
        if checkpoint is None or checkpoint == self._tried or not hasattr(loop, 'roll_back'):
            tried = 'there is no earlier checkpoint'
            if checkpoint is not None:
                tried = f'rolling back to {checkpoint} did not help'
            self._log(
                f'Training ends, as {trouble} and {tried}; lower optim_wrapper.optimizer.lr or set '
                'optim_wrapper.clip_grad.max_norm.',
                logging.ERROR,
            )
            sys.exit(1)
        self._log(f'Rolling back to {checkpoint}, to continue with other data: {trouble}.')
        # A second return to the same checkpoint would repeat without end.
        self._tried = checkpoint
        loop.roll_back(checkpoint)

    @staticmethod
    def _describe(runner: Runner, in_a_row: int, bad_losses: int) -> str:
        """Describes what was not finite, on which ranks, and at which rate and loss scale."""
        wrapper = runner.optim_wrapper
        ranks = [str(rank) for rank, number in enumerate(all_gather_object(bad_losses)) if number]
        source = 'by gradients, with a finite loss on every rank'
        if ranks:
            source = f'by the loss of rank {", ".join(ranks)}'
        what = 'the weights are not finite'
        if in_a_row:
            what = f'the last {in_a_row} updates were not finite, {source}'
        return (
            f'at iteration {runner.iter + 1} {what} (lr {wrapper.get_lr()["lr"][0]:.3g}, loss '
            f'scale {wrapper.loss_scaler.get_scale():g})'
        )

    @staticmethod
    def _paths(runner: Runner) -> CheckpointPaths:
        """Returns the checkpoint hook's paths, or those of the work dir without such a hook."""
        for hook in runner.hooks:
            if isinstance(paths := getattr(hook, 'paths', None), CheckpointPaths):
                return paths
        return CheckpointPaths.of(runner.work_dir)

    @staticmethod
    def _log(sentence: str, level: int = logging.WARNING) -> None:
        """Logs a sentence once, as errors of all ranks reach the output."""
        if is_main_process():
            print_log(sentence, logger='current', level=level)
