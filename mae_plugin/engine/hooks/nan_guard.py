"""What happens when updates are not finite again and again."""

from __future__ import annotations

import logging
import sys

import torch
from mmengine.dist import all_gather_object, all_reduce, broadcast_object_list, is_main_process
from mmengine.hooks import Hook
from mmengine.logging import print_log
from mmengine.runner import Runner

from ...utils._compat.mmengine import accumulative_counts
from ..optim.skip_updates import SkipsBadUpdates, is_finite
from ..resume.find import newest_whole_checkpoint
from ..resume.work_dir import Places


class NaNGuardHook(Hook):
    """Goes back to the last good checkpoint when updates are skipped without end.

    :class:`AutoAmpOptimWrapper` skips what is not finite. Every ``patience`` steps this hook reads
    how many it has skipped in a row, and whether the weights are finite. If none of the last
    ``patience`` updates was taken, training goes on from the newest checkpoint of before, with
    other crops, masks and order of the data. If that checkpoint was tried already, or there is
    none, the run ends with a sentence. It takes one of the Resumable loops.

    Args:
        patience: updates skipped in a row that are too many; more than the handful with which a
            loss scaler of float16 finds its scale.

    Raises:
        ValueError: if ``patience`` is not positive.
    """

    def __init__(self, patience: int = 50) -> None:
        if patience < 1:
            raise ValueError(f'patience={patience} would stop every run; give a positive number')
        self.patience = patience
        self._in_all = 0
        self._tried = None

    def after_train_iter(
        self, runner: Runner, batch_idx: int, data_batch=None, outputs: dict | None = None
    ) -> None:
        """Looks, where it is due."""
        wrapper = runner.optim_wrapper
        if not isinstance(wrapper, SkipsBadUpdates) or not self.every_n_train_iters(
            runner, self.patience
        ):
            return
        in_a_row, in_all, bad_losses = wrapper.read_skipped()
        if in_all > self._in_all:
            self._say(
                f'{in_all - self._in_all} updates up to step {runner.iter + 1} were not finite, '
                'and skipped.'
            )
        self._in_all = in_all
        # Buffers such as BatchNorm's may differ between ranks, which must go back together.
        trouble = torch.tensor(float(in_a_row >= self.patience or not is_finite(runner.model)))
        all_reduce(trouble, 'max')
        if trouble:
            self._go_back(runner, in_a_row, bad_losses)

    def _go_back(self, runner: Runner, in_a_row: int, bad_losses: int) -> None:
        wrapper = runner.optim_wrapper
        ranks = [str(rank) for rank, number in enumerate(all_gather_object(bad_losses)) if number]
        where = (
            f'the loss of rank {", ".join(ranks)}'
            if ranks
            else 'gradients, with a finite loss on every rank'
        )
        what = (
            f'the last {in_a_row} updates were not finite, by {where}'
            if in_a_row
            else 'the weights are not finite'
        )
        trouble = (
            f'at iteration {runner.iter + 1} {what} (lr {wrapper.get_lr()["lr"][0]:.3g}, loss '
            'scale '
            f'{wrapper.loss_scaler.get_scale():g})'
        )
        begin = runner.iter + 1 - in_a_row * accumulative_counts(wrapper)
        hooks = (getattr(hook, 'places', None) for hook in runner.hooks)
        places = next(filter(None, hooks), Places.of(runner.work_dir))
        found = [newest_whole_checkpoint(places, begin) if is_main_process() else None]
        broadcast_object_list(found)
        (checkpoint,) = found
        loop = runner.train_loop
        if checkpoint is None or checkpoint == self._tried or not hasattr(loop, 'go_back_to'):
            tried = (
                f'going back to {checkpoint} did not help'
                if checkpoint
                else 'there is no checkpoint of before'
            )
            self._say(
                f'Training ends, as {trouble} and {tried}; lower optim_wrapper.optimizer.lr or set '
                'optim_wrapper.clip_grad.max_norm.',
                logging.ERROR,
            )
            sys.exit(1)
        self._say(f'Going back to {checkpoint}, and on with other data: {trouble}.')
        self._tried = loop.go_back_to = checkpoint

    @staticmethod
    def _say(sentence: str, level: int = logging.WARNING) -> None:
        # Errors of every process reach its output, but all say the same.
        if is_main_process():
            print_log(sentence, logger='current', level=level)
