"""Checkpoints on disk that survive whatever happens to the process that writes them."""

from __future__ import annotations

import logging
import os
import zipfile
from pathlib import Path

from mmengine.dist import broadcast_object_list, is_main_process
from mmengine.fileio import LocalBackend, register_backend
from mmengine.hooks import CheckpointHook
from mmengine.logging import print_log
from mmengine.runner import Runner

from ..checkpoints.files import write_atomically


class AtomicBackend(LocalBackend):
    """mmengine's backend for local files, each of which is there whole or not at all."""

    def put(self, obj: bytes, filepath: str | Path) -> None:
        """Writes bytes, making the folder if need be."""
        Path(filepath).parent.mkdir(parents=True, exist_ok=True)
        write_atomically(filepath, obj)


register_backend('atomic', AtomicBackend, force=True)


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
        self._outdated.clear()


class SafeCheckpointHook(CheckpointHook):
    """mmengine's CheckpointHook with checkpoints that survive a kill at any moment.

    A checkpoint is written under another name, forced to disk and then renamed; the one that it replaces is removed
    only after that, so a whole one is always there. Resuming without naming a checkpoint passes over damaged ones.
    Outside the local file system (``out_dir='s3://…'``) mmengine's own ways hold.

    Arguments are those of ``CheckpointHook``.
    """

    def before_run(self, runner: Runner) -> None:
        """Chooses the checkpoint to resume from if none was named."""
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

    def _save_checkpoint_with_step(self, runner: Runner, step: int, meta: dict) -> None:
        super()._save_checkpoint_with_step(runner, step, meta)
        self._remove_outdated()

    def _save_best_checkpoint(self, runner: Runner, metrics: dict) -> None:
        super()._save_best_checkpoint(runner, metrics)
        self._remove_outdated()

    def _remove_outdated(self) -> None:
        if isinstance(self.file_backend, _RemovesLater):
            self.file_backend.remove_outdated()


def newest_whole_checkpoint(work_dir: str | Path) -> Path | None:
    """The checkpoint from which to go on in a work dir: the last one written that is not damaged, or None."""
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
            return path
        print_log(f'{path} is damaged, so training does not resume from it.', logger='current', level=logging.WARNING)
    if candidates:
        print_log(f'No checkpoint in {folder} is whole; training starts anew.', logger='current', level=logging.WARNING)
    return None


def _is_whole(path: Path) -> bool:
    """Whether a checkpoint is as it was written; torch itself does not compare the checksums in it."""
    try:
        with zipfile.ZipFile(path) as file:
            return file.testzip() is None
    except (zipfile.BadZipFile, OSError):
        return False
