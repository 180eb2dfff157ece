"""Checkpoints on disk that survive whatever happens to the process that writes them."""

from __future__ import annotations

import logging
import os
import zipfile
from collections import deque
from collections.abc import Callable
from functools import partial
from pathlib import Path

from mmengine.dist import broadcast_object_list, is_main_process
from mmengine.fileio import LocalBackend, register_backend
from mmengine.hooks import CheckpointHook
from mmengine.logging import print_log
from mmengine.runner import Runner

from ..checkpoints.files import write_atomically
from ..checkpoints.loading import read_checkpoint
from ..checkpoints.plain_state import to_plain
from .finite import SkipsBadUpdates, is_finite
from .sharded import FullyShardedModel, send_shards


class AtomicBackend(LocalBackend):
    """mmengine's backend for local files, each of which is there whole or not at all."""

    def put(self, obj: bytes, filepath: str | Path) -> None:
        """Writes bytes, making the folder if need be."""
        Path(filepath).parent.mkdir(parents=True, exist_ok=True)
        write_atomically(filepath, obj)


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

    A checkpoint is written under another name, forced to disk and then renamed; the one that it replaces is removed
    only after that, so a whole one is always there. Resuming without naming a checkpoint passes over damaged ones.
    Outside the local file system (``out_dir='s3://…'``) mmengine's own ways hold.

    Weights that are not finite are never written, and nothing is removed while updates are being skipped. A write that
    fails, on a full disk for one, is an error in the log and not the end of training.

    Arguments are those of ``CheckpointHook``.

    Raises:
        ValueError: if checkpoints by iteration would fall between the steps of one update.
    """

    def before_run(self, runner: Runner) -> None:
        """Chooses the checkpoint to resume from if none was named."""
        steps = getattr(runner.optim_wrapper, '_accumulative_counts', 1)
        if not self.by_epoch and self.interval > 0 and self.interval % steps:
            raise ValueError(
                f'a checkpoint every {self.interval} steps would fall between the {steps} steps that make an update; '
                f'give default_hooks.checkpoint.interval a multiple of {steps}'
            )
        if runner._resume and runner._load_from is None:
            found = [str(newest_whole_checkpoint(runner.work_dir) or '') if is_main_process() else None]
            broadcast_object_list(found)
            runner._load_from = found[0] or None
            runner._resume = bool(found[0])

    def before_train(self, runner: Runner) -> None:
        """Sets up the folder for checkpoints."""
        super().before_train(runner)
        if self.file_client_args is None and type(self.file_backend) is LocalBackend:
            self.backend_args = dict(backend='atomic')
            self.file_backend = _RemovesLater()
        if isinstance(runner.model, FullyShardedModel) and not is_main_process():
            runner.save_checkpoint = partial(send_shards, runner)

    def before_save_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Notes what an update is made of, and leaves no pickled classes in the checkpoint."""
        if batch := getattr(runner.train_loop, 'batch', None):
            checkpoint['meta']['batch'] = list(batch)
        checkpoint.update(to_plain(checkpoint))

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Before resuming, counts the steps of another number of GPUs as this run does."""
        batch = getattr(runner._train_loop, 'batch', None)
        if batch and (runner._resume or runner._has_loaded):
            batch.take_over(checkpoint)

    def save_between(self, runner: Runner) -> None:
        """Saves after a step at which none is due; the next regular checkpoint takes this one's place."""
        if not self.by_epoch:
            self._save_checkpoint(runner)
            return
        name = f'iter_{runner.iter + 1}.pth'

        def save() -> None:
            runner.message_hub.update_info(_BETWEEN, name)
            meta = dict(epoch=runner.epoch, iter=runner.iter + 1)
            runner.save_checkpoint(self.out_dir, name, meta=meta, by_epoch=False, backend_args=self.backend_args)
            if is_main_process():
                Path(runner.work_dir, 'last_checkpoint').write_text(str(Path(self.out_dir, name)))

        self._safely(runner, save)

    def _save_checkpoint_with_step(self, runner: Runner, step: int, meta: dict) -> None:
        def save() -> None:
            if name := runner.message_hub.pop_info(_BETWEEN, None):
                path = self.file_backend.join_path(self.out_dir, name)
                if is_main_process() and self.file_backend.isfile(path):
                    self.file_backend.remove(path)
            super(SafeCheckpointHook, self)._save_checkpoint_with_step(runner, step, meta)

        self._safely(runner, save)

    def _save_best_checkpoint(self, runner: Runner, metrics: dict) -> None:
        self._safely(runner, lambda: super(SafeCheckpointHook, self)._save_best_checkpoint(runner, metrics))

    def _safely(self, runner: Runner, save: Callable[[], None]) -> None:
        """Saves, if there is something to save and room for it; if not, everything stays as it was."""
        if not is_finite(runner.model):
            self._fail('there are numbers in the weights that are not finite, so they were not saved')
            return
        hub = runner.message_hub
        before = dict(hub.runtime_info), self.last_ckpt, list(getattr(self, 'keep_ckpt_ids', ()))
        try:
            save()
        except OSError as error:
            hub.runtime_info.clear()
            hub.runtime_info.update(before[0])
            self.last_ckpt, self.keep_ckpt_ids = before[1], deque(before[2], max(self.max_keep_ckpts, 0))
            if isinstance(self.file_backend, _RemovesLater):
                self.file_backend.forget()
            self._fail(f'the checkpoint could not be written ({error}); free some space in {self.out_dir}')
            return
        skipping = isinstance(runner.optim_wrapper, SkipsBadUpdates) and runner.optim_wrapper.is_skipping()
        # What is written while no update is taken may turn out to be of no use.
        if isinstance(self.file_backend, _RemovesLater) and not skipping:
            self.file_backend.remove_outdated()

    @staticmethod
    def _fail(reason: str) -> None:
        if is_main_process():
            text = f'NO CHECKPOINT: {reason}. The last good one is kept, and training goes on.'
            print_log(text, logger='current', level=logging.ERROR)


def newest_whole_checkpoint(work_dir: str | Path, last_step: int | None = None) -> Path | None:
    """The checkpoint from which to go on in a work dir: the last one written that is not damaged, or None.

    Args:
        work_dir: the run's folder.
        last_step: passes over checkpoints of later iterations.
    """
    pointer = Path(work_dir, 'last_checkpoint')
    named = Path(pointer.read_text().strip()) if pointer.is_file() else Path(work_dir, '-')
    # A work dir may have been moved since, and a checkpoint's folder may be another.
    folder = named.parent if named.is_file() else Path(work_dir)
    by_age = sorted(folder.glob('*_[0-9]*.pth'), key=lambda path: path.stat().st_mtime_ns, reverse=True)
    candidates = [
        path for path in by_age if path.stem.rpartition('_')[2].isdigit() and not path.stem.startswith('best_')
    ]
    # Copying may have changed the dates of files, so what the last run said goes first.
    candidates.sort(key=lambda path: path.name != named.name)
    for path in candidates:
        if _is_whole(path):
            if last_step is None or read_checkpoint(str(path), 'meta')['meta']['iter'] <= last_step:
                return path
            continue
        print_log(f'{path} is damaged, so training does not resume from it.', logger='current', level=logging.WARNING)
    if candidates and last_step is None:
        print_log(f'No checkpoint in {folder} is whole; training starts anew.', logger='current', level=logging.WARNING)
    return None


def _is_whole(path: Path) -> bool:
    """Whether a checkpoint is as it was written; torch itself does not compare the checksums in it."""
    try:
        with zipfile.ZipFile(path) as file:
            return file.testzip() is None
    except (zipfile.BadZipFile, OSError):
        return False
