"""Checkpoints that survive a kill of the process at any moment.

The hook writes through ``atomic_backend``, stores the run's state through its base class
``run_state.RunStateHook``, and chooses the checkpoint to resume from in ``resume/find.py``.
PreemptionHook calls ``save_extra``. NaNGuardHook reads ``paths``.
"""

from __future__ import annotations

import logging
import os
import sys
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Any

from mmengine.dist import broadcast_object_list, is_main_process
from mmengine.fileio import LocalBackend
from mmengine.hooks import CheckpointHook
from mmengine.logging import print_log
from mmengine.runner import Runner

from ...utils._compat.mmengine import (
    accumulative_counts,
    is_resuming,
    load_source,
    set_resume_source,
)
from ...utils.atomic_files import write_atomically
from ...weights.plain_state import to_plain
from ..loops.total_batch import check_steps
from ..optim.skip_updates import SkipNonFiniteUpdates, is_finite
from ..parallel import save_on_all_ranks
from ..resume.find import choose
from ..resume.work_dir import CheckpointPaths
from ..state import state_of
from .atomic_backend import DeferredRemoval
from .run_state import RunStateHook


class SafeCheckpointHook(RunStateHook, CheckpointHook):
    """Extends mmengine's CheckpointHook by checkpoints that survive a kill at any moment.

    A checkpoint is written under a temporary name, forced to disk and then renamed. The checkpoint
    that it replaces is removed only after that, so a complete one always exists. Resuming without a
    named checkpoint skips damaged ones. Outside the local file system (``out_dir='s3://…'``),
    mmengine's own methods are used.

    Non-finite weights are never written, and nothing is removed while updates are being skipped. A
    failed write, for example on a full disk, logs an error and does not end training.

    Arguments are those of ``CheckpointHook``.

    Raises:
        ValueError: if ``interval`` counts iterations and is not a multiple of the accumulated
            steps of an update.
    """

    # The reason why the last regular checkpoint that was due is not on disk.
    file_backend: Any
    _lost: str | None = None
    # The epoch or iteration of the last regular checkpoint on disk.
    _saved_step: int | None = None

    def before_run(self, runner: Runner) -> None:
        """Chooses the checkpoint to resume from, or verifies the checksum of a named one."""
        steps = accumulative_counts(runner.optim_wrapper)
        if not self.by_epoch and self.interval > 0 and self.interval % steps:
            raise ValueError(
                f'default_hooks.checkpoint.interval={self.interval} saves between the {steps} '
                f'accumulated steps of an update; use a multiple of {steps}'
            )
        self.paths = CheckpointPaths.of(runner.work_dir, self.out_dir, self.filename_tmpl)
        named = load_source(runner)
        is_local = '://' not in str(named or self.out_dir or '')
        if is_resuming(runner) and is_local:
            # One rank chooses for all, so that they resume from the same file.
            chosen: list[Any] = [choose(self.paths, named) if is_main_process() else None]
            broadcast_object_list(chosen)
            path, fault = chosen[0]
            if fault:
                raise ValueError(fault)
            set_resume_source(runner, path)

    def before_train(self, runner: Runner) -> None:
        """Sets up the folder for checkpoints."""
        check_steps(runner.train_dataloader)
        self._adopt_paths(runner)
        super().before_train(runner)
        # A remote file system has its own guarantees.
        if self.file_client_args is None and type(self.file_backend) is LocalBackend:
            self.backend_args = dict(backend='atomic')
            self.file_backend = DeferredRemoval()
        save_on_all_ranks(runner)

    def _adopt_paths(self, runner: Runner) -> None:
        """Moves the stored paths of the last and best checkpoints to this run's folder.

        A work dir that was copied must not remove the original's best checkpoint.
        """
        stored = runner.message_hub.runtime_info
        for name, path in stored.items():
            is_checkpoint = name == 'last_ckpt' or name.startswith('best_ckpt')
            if is_checkpoint and path and '://' not in path:
                stored[name] = str(self.paths.folder / os.path.basename(path))
        step = runner.epoch if self.by_epoch else runner.iter
        last = self.paths.folder / self.filename_tmpl.format(step)
        if step > 0 and stored.get('last_ckpt') == str(last):
            # A validation that is still due may find a better model, and then updates this file.
            self.last_ckpt, self._saved_step = str(last), step

    def before_save_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Adds the run's state to a checkpoint, and converts the whole checkpoint to plain data."""
        super().before_save_checkpoint(runner, checkpoint)
        checkpoint.update(to_plain(checkpoint))

    def after_val_epoch(self, runner: Runner, metrics: dict) -> None:
        """Saves the best checkpoint, with the note that this validation is completed."""
        # None in evaluation, where reading `runner.epoch` would build a training loop.
        if (state := state_of(runner)) is not None:
            state.last_validation = (runner.epoch, runner.iter)
        super().after_val_epoch(runner, metrics)

    def after_run(self, runner: Runner) -> None:
        """Ends the process with exit code 1 if the last checkpoint could not be written."""
        if self._lost:
            print_log(
                f'The last checkpoint of this run is not on disk: {self._lost}. Training since the '
                'last good checkpoint is lost; resume=True continues from that checkpoint.',
                logger='current',
                level=logging.ERROR,
            )
            sys.exit(1)

    def save_extra(self, runner: Runner) -> bool:
        """Saves between two regular checkpoints; the next regular one replaces this one.

        Returns:
            Whether the checkpoint is on disk.
        """
        if not self.by_epoch:
            self._save_checkpoint(runner)
            return self._lost is None
        name = f'iter_{runner.iter + 1}.pth'

        def save() -> None:
            # Before saving, so that the checkpoint itself holds its name.
            state = state_of(runner)
            if state is not None:
                state.extra_checkpoint = name
            meta = dict(epoch=runner.epoch, iter=runner.iter + 1)
            runner.save_checkpoint(
                self.out_dir, name, meta=meta, by_epoch=False, backend_args=self.backend_args
            )
            # mmengine writes this file for regular checkpoints alone.
            if is_main_process():
                pointer = Path(runner.work_dir, 'last_checkpoint')
                write_atomically(pointer, os.fsencode(Path(self.out_dir, name)))

        self._lost = self._try_to_save(runner, save)
        return self._lost is None

    def _save_checkpoint_with_step(self, runner: Runner, step: int, meta: dict) -> None:
        """Saves a regular checkpoint, which replaces an extra one."""

        def save() -> None:
            state = state_of(runner)
            name = None
            if state is not None:
                name, state.extra_checkpoint = state.extra_checkpoint, None
            if name:
                path = self.file_backend.join_path(self.out_dir, name)
                if is_main_process() and self.file_backend.isfile(path):
                    self.file_backend.remove(path)
            super(SafeCheckpointHook, self)._save_checkpoint_with_step(runner, step, meta)

        fault = self._try_to_save(runner, save)
        # A better validation saves the same step once more. If that fails, the checkpoint from
        # before is still on disk.
        if fault is None or step != self._saved_step:
            self._lost = fault
        if fault is None:
            self._saved_step = step

    def _save_best_checkpoint(self, runner: Runner, metrics: dict) -> None:
        """Saves the best checkpoint if ``save_best`` is set."""
        # A run that only validates has no folder for checkpoints.
        if self.save_best:
            save = super()._save_best_checkpoint
            self._try_to_save(runner, lambda: save(runner, metrics))

    def _try_to_save(self, runner: Runner, save: Callable[[], None]) -> str | None:
        """Saves if all weights are finite, and undoes all changes if the write fails.

        Returns:
            The reason why the checkpoint was not saved, or None.
        """
        if not is_finite(runner.model):
            return self._fail('some weights are not finite, so they were not saved')
        undo = self._snapshot(runner)
        try:
            save()
        except OSError as error:
            undo()
            return self._fail(
                f'the checkpoint could not be written ({error}); free some space in {self.out_dir}'
            )
        wrapper = runner.optim_wrapper
        is_skipping = isinstance(wrapper, SkipNonFiniteUpdates) and wrapper.is_skipping()
        # A checkpoint that is written while updates are skipped may turn out to be useless.
        if isinstance(self.file_backend, DeferredRemoval) and not is_skipping:
            self.file_backend.remove_outdated()
        return None

    def _snapshot(self, runner: Runner) -> Callable[[], None]:
        """Copies all that mmengine changes when it saves; returns a function to restore it."""
        stored, state = runner.message_hub.runtime_info, state_of(runner)
        own = {
            name: getattr(self, name)
            for name in ('last_ckpt', 'best_ckpt_path')
            if hasattr(self, name)
        }
        stored_before = dict(stored)
        state_before = {} if state is None else dict(vars(state))
        keep_ids = list(getattr(self, 'keep_ckpt_ids', ()))
        best = dict(getattr(self, 'best_ckpt_path_dict', {}))

        def undo() -> None:
            stored.clear()
            stored.update(stored_before)
            if state is not None:
                state.__dict__.update(state_before)
            self.__dict__.update(own)
            self.keep_ckpt_ids = deque(keep_ids, max(self.max_keep_ckpts, 0))
            if best:
                self.best_ckpt_path_dict = best
            if isinstance(self.file_backend, DeferredRemoval):
                self.file_backend.keep_outdated()

        return undo

    @staticmethod
    def _fail(reason: str) -> str:
        """Logs that no checkpoint was written; returns the reason."""
        if is_main_process():
            text = f'NO CHECKPOINT: {reason}. The last good one is kept, and training continues.'
            print_log(text, logger='current', level=logging.ERROR)
        return reason
