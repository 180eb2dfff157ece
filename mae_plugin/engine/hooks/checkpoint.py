"""Checkpoints on disk that survive whatever happens to the process that writes them."""

from __future__ import annotations

import logging
import os
import sys
from collections import deque
from collections.abc import Callable
from functools import partial
from pathlib import Path

from mmengine.dist import broadcast_object_list, is_main_process
from mmengine.fileio import LocalBackend, register_backend
from mmengine.hooks import CheckpointHook
from mmengine.logging import print_log
from mmengine.runner import Runner

from ...utils._compat.mmengine import (
    accumulative_counts,
    built_loop,
    has_loaded,
    is_resuming,
    load_source,
    set_resume_source,
)
from ...utils.atomic_files import write_atomically
from ...weights.digest import add_digest, digest_matches
from ...weights.plain_state import to_plain
from ..loops.total_batch import check_steps
from ..optim.skip_updates import SkipsBadUpdates, is_finite
from ..parallel import FullyShardedModel, send_shards
from ..resume.find import DAMAGED, resume_point
from ..resume.same_run import compare_data, compare_optimizer, compare_schedules, describe_data
from ..resume.work_dir import Places


class AtomicBackend(LocalBackend):
    """mmengine's backend for local files, each of which is there whole or not at all."""

    def put(self, obj: bytes, filepath: str | Path) -> None:
        """Writes bytes, making the folder if need be."""
        Path(filepath).parent.mkdir(parents=True, exist_ok=True)
        write_atomically(filepath, add_digest(obj))


register_backend('atomic', AtomicBackend, force=True)

# The message hub's name for a checkpoint that the next regular one replaces.
_BETWEEN = 'checkpoint_between'


class _RemovesLater(LocalBackend):
    """Notes what is to be removed, so that it can be done once its successor is on disk."""

    def __init__(self) -> None:
        super().__init__()
        self._outdated: dict[Path, int] = {}

    def remove(self, filepath: str | Path) -> None:
        self._outdated[Path(filepath)] = os.stat(filepath).st_mtime_ns

    def remove_outdated(self) -> None:
        for path, written in self._outdated.items():
            # The successor may have been given the same name.
            if path.is_file() and path.stat().st_mtime_ns == written:
                path.unlink()
        self.forget()

    def forget(self) -> None:
        self._outdated.clear()


class SafeCheckpointHook(CheckpointHook):
    """mmengine's CheckpointHook with checkpoints that survive a kill at any moment.

    A checkpoint is written under another name, forced to disk and then renamed; the one that it
    replaces is removed only after that, so a whole one is always there. Resuming without naming a
    checkpoint passes over damaged ones. Outside the local file system (``out_dir='s3://…'``)
    mmengine's own ways hold.

    Weights that are not finite are never written, and nothing is removed while updates are being
    skipped. A write that fails, on a full disk for one, is an error in the log and not the end of
    training.

    Arguments are those of ``CheckpointHook``.

    Raises:
        ValueError: if checkpoints by iteration would fall between the steps of one update.
    """

    _lost: str | None = None
    """Why the last regular checkpoint that was due is not on disk."""
    _saved_step: int | None = None
    """The epoch or iteration of the last regular checkpoint on disk."""
    _data: dict | None = None

    def before_run(self, runner: Runner) -> None:
        """Chooses the checkpoint to resume from if none was named; a named one is compared with its
        checksum.
        """
        steps = accumulative_counts(runner.optim_wrapper)
        if not self.by_epoch and self.interval > 0 and self.interval % steps:
            raise ValueError(
                f'a checkpoint every {self.interval} steps would fall between the {steps} steps '
                'that make an update; '
                f'give default_hooks.checkpoint.interval a multiple of {steps}'
            )
        self.places = Places.of(runner.work_dir, self.out_dir, self.filename_tmpl)
        named = load_source(runner)
        if is_resuming(runner) and '://' not in str(named or self.out_dir or ''):
            chosen = [self._choose(named) if is_main_process() else None]
            broadcast_object_list(chosen)
            path, fault = chosen[0]
            if fault:
                raise ValueError(fault)
            set_resume_source(runner, path)

    def _choose(self, named: str | None) -> tuple[str | None, str | None]:
        """The checkpoint to resume from, and what is wrong, which every process has to be told."""
        try:
            if named is None:
                path = resume_point(self.places)
                return path and str(path), None
            if os.path.isfile(named) and digest_matches(named) is False:
                return named, f'{named} {DAMAGED}; resume from another one'
            return named, None
        except ValueError as error:
            return None, str(error)

    def before_train(self, runner: Runner) -> None:
        """Sets up the folder for checkpoints."""
        check_steps(runner.train_dataloader)
        self._take_over_paths(runner)
        super().before_train(runner)
        if self.file_client_args is None and type(self.file_backend) is LocalBackend:
            self.backend_args = dict(backend='atomic')
            self.file_backend = _RemovesLater()
        if isinstance(runner.model, FullyShardedModel) and not is_main_process():
            runner.save_checkpoint = partial(send_shards, runner)

    def _take_over_paths(self, runner: Runner) -> None:
        """After resuming, looks for the last and the best checkpoints in this run's folder.

        A work dir that was copied must not remove the original's best checkpoint.
        """
        noted = runner.message_hub.runtime_info
        for name, path in noted.items():
            if (name == 'last_ckpt' or name.startswith('best_ckpt')) and path and '://' not in path:
                noted[name] = str(self.places.folder / os.path.basename(path))
        step = runner.epoch if self.by_epoch else runner.iter
        last = self.places.folder / self.filename_tmpl.format(step)
        if step > 0 and noted.get('last_ckpt') == str(last):
            # If the validation that is still due finds a better model, this checkpoint gets to know
            # it.
            self.last_ckpt, self._saved_step = str(last), step

    def before_save_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Notes what an update is made of, the optimizer and the data; makes all of the checkpoint
        plain data.
        """
        meta = checkpoint['meta']
        if batch := getattr(runner.train_loop, 'batch', None):
            meta['batch'] = list(batch)
        meta['data'] = self._describe_data(runner)
        meta['optimizer'] = type(getattr(runner.optim_wrapper, 'optimizer', None)).__name__
        checkpoint.update(to_plain(checkpoint))

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Before resuming, compares that run with this one, and counts its steps as this run
        does.
        """
        if not (is_resuming(runner) or has_loaded(runner)):
            return
        source = load_source(runner) or 'the checkpoint'
        compare_optimizer(checkpoint, runner.optim_wrapper, source)
        compare_schedules(checkpoint, runner.param_schedulers, source)
        compare_data(checkpoint, self._describe_data(runner))
        if batch := getattr(built_loop(runner, 'train'), 'batch', None):
            batch.take_over(checkpoint)

    def _describe_data(self, runner: Runner) -> dict:
        # Once a run: the names may be many.
        if self._data is None:
            self._data = describe_data(runner.train_dataloader.dataset)
        return self._data

    def after_val_epoch(self, runner: Runner, metrics: dict) -> None:
        """Saves the best checkpoint, which holds that this validation is done."""
        # Evaluation alone builds no training loop, and asking for the epoch would build it.
        if built_loop(runner, 'train') is not None:
            runner.message_hub.update_info('last_validated_at', (runner.epoch, runner.iter))
        super().after_val_epoch(runner, metrics)

    def after_run(self, runner: Runner) -> None:
        """Ends a run whose last checkpoint could not be written with exit code 1."""
        if self._lost:
            print_log(
                f'The last checkpoint of this run is not on disk: {self._lost}. What was trained '
                'since the last good '
                'checkpoint is lost; --resume goes on from there.',
                logger='current',
                level=logging.ERROR,
            )
            sys.exit(1)

    def save_between(self, runner: Runner) -> bool:
        """Saves after a step at which none is due; the next regular checkpoint takes this one's
        place.

        Returns:
            Whether it is on disk.
        """
        if not self.by_epoch:
            self._save_checkpoint(runner)
            return self._lost is None
        name = f'iter_{runner.iter + 1}.pth'

        def save() -> None:
            runner.message_hub.update_info(_BETWEEN, name)
            meta = dict(epoch=runner.epoch, iter=runner.iter + 1)
            runner.save_checkpoint(
                self.out_dir, name, meta=meta, by_epoch=False, backend_args=self.backend_args
            )
            if is_main_process():
                write_atomically(
                    Path(runner.work_dir, 'last_checkpoint'), os.fsencode(Path(self.out_dir, name))
                )

        self._lost = self._safely(runner, save)
        return self._lost is None

    def _save_checkpoint_with_step(self, runner: Runner, step: int, meta: dict) -> None:
        def save() -> None:
            if name := runner.message_hub.pop_info(_BETWEEN, None):
                path = self.file_backend.join_path(self.out_dir, name)
                if is_main_process() and self.file_backend.isfile(path):
                    self.file_backend.remove(path)
            super(SafeCheckpointHook, self)._save_checkpoint_with_step(runner, step, meta)

        fault = self._safely(runner, save)
        # A better validation saves the same step once more; without that, the checkpoint of before
        # is still there.
        if fault is None or step != self._saved_step:
            self._lost = fault
        if fault is None:
            self._saved_step = step

    def _save_best_checkpoint(self, runner: Runner, metrics: dict) -> None:
        # A run that only validates has no place for checkpoints.
        if self.save_best:
            self._safely(
                runner,
                lambda: super(SafeCheckpointHook, self)._save_best_checkpoint(runner, metrics),
            )

    def _safely(self, runner: Runner, save: Callable[[], None]) -> str | None:
        """Saves, if there is something to save and room for it; if not, everything stays as it was.

        Returns:
            Why it was not saved, or None.
        """
        if not is_finite(runner.model):
            return self._fail(
                'there are numbers in the weights that are not finite, so they were not saved'
            )
        hub = runner.message_hub
        own = {
            name: getattr(self, name)
            for name in ('last_ckpt', 'best_ckpt_path')
            if hasattr(self, name)
        }
        before = dict(hub.runtime_info), own, list(getattr(self, 'keep_ckpt_ids', ()))
        best = dict(getattr(self, 'best_ckpt_path_dict', {}))
        try:
            save()
        except OSError as error:
            hub.runtime_info.clear()
            hub.runtime_info.update(before[0])
            vars(self).update(before[1])
            self.keep_ckpt_ids = deque(before[2], max(self.max_keep_ckpts, 0))
            if best:
                self.best_ckpt_path_dict = best
            if isinstance(self.file_backend, _RemovesLater):
                self.file_backend.forget()
            return self._fail(
                f'the checkpoint could not be written ({error}); free some space in {self.out_dir}'
            )
        skipping = (
            isinstance(runner.optim_wrapper, SkipsBadUpdates) and runner.optim_wrapper.is_skipping()
        )
        # What is written while no update is taken may turn out to be of no use.
        if isinstance(self.file_backend, _RemovesLater) and not skipping:
            self.file_backend.remove_outdated()
        return None

    @staticmethod
    def _fail(reason: str) -> str:
        if is_main_process():
            text = f'NO CHECKPOINT: {reason}. The last good one is kept, and training goes on.'
            print_log(text, logger='current', level=logging.ERROR)
        return reason
