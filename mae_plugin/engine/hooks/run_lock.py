"""Locks a work dir, so that only one run at a time trains in it."""

from __future__ import annotations

import logging
import os
from pathlib import Path

from mmengine.config import Config
from mmengine.dist import broadcast_object_list, is_distributed, is_main_process
from mmengine.hooks import Hook
from mmengine.logging import print_log
from mmengine.runner import Runner

from ...utils._compat.mmengine import built_loop
from ...utils.locks import FileLock, LockedError

_NAME = '.run.lock'
# The locks of this process by work dir. Two trainings of one process in the same work dir run one
# after the other, so they share a lock.
_locks: dict[str, FileLock] = {}


class RunLockHook(Hook):
    """Refuses to train in a work dir in which another process trains.

    The first rank holds a lock on ``.run.lock`` in the work dir until training or its process ends.
    Testing needs no lock. On file systems without locks, training continues without one.

    Raises:
        ValueError: on all ranks, if another process holds the lock. The message names the process
            and its host.
    """

    # Before any hook reads from the work dir or writes to it.
    priority = 'HIGHEST'

    def before_run(self, runner: Runner) -> None:
        """Acquires the lock for training."""
        if built_loop(runner, 'train') is not None:
            lock_work_dir(runner.work_dir)

    def after_run(self, runner: Runner) -> None:
        """Releases the lock."""
        unlock_work_dir(runner.work_dir)


def lock_work_dir(work_dir: str | Path) -> None:
    """Acquires the lock of a work dir on the first rank; calling it again has no effect.

    Raises:
        ValueError: on all ranks, if another process holds the lock.
    """
    refusal = [_acquire(Path(work_dir)) if is_main_process() else None]
    # If one rank ended alone, the others would wait for it.
    broadcast_object_list(refusal)
    if refusal[0] is not None:
        raise ValueError(refusal[0])


def lock_early(cfg: Config) -> None:
    """Acquires the lock of a config's work dir before its Runner is built, which writes there.

    RunLockHook, which is added if it is missing, holds the lock from then on. Ranks that are not
    connected yet leave it to the hook to acquire the lock.

    Raises:
        ValueError: if another process holds the lock.
    """
    if 'lock' not in (cfg.get('default_hooks') or {}):
        hook = dict(type='mmpretrain.RunLockHook', priority='HIGHEST')
        cfg.custom_hooks = [*(cfg.get('custom_hooks') or ()), hook]
    if cfg.get('launcher', 'none') == 'none' or is_distributed():
        lock_work_dir(cfg.work_dir)


def unlock_work_dir(work_dir: str | Path) -> None:
    """Releases the lock of a work dir if this process holds it."""
    if lock := _locks.pop(os.path.realpath(work_dir), None):
        lock.release()


def _acquire(work_dir: Path) -> str | None:
    """Acquires the lock; returns an error message if another process holds it."""
    key = os.path.realpath(work_dir)
    if key in _locks:
        return None
    lock = FileLock(work_dir / _NAME)
    try:
        work_dir.mkdir(parents=True, exist_ok=True)
        lock.acquire()
    except LockedError as error:
        return (
            f'{error.holder} is training in {work_dir} already; wait until that run has ended, end '
            'it, or choose another work_dir'
        )
    except OSError as error:
        text = f'{work_dir} cannot be locked ({error}), so a second run in it is not prevented.'
        print_log(text, logger='current', level=logging.WARNING)
        return None
    _locks[key] = lock
    return None


def _forget_locks() -> None:
    """Forgets the locks in a forked process, as they belong to its parent."""
    _locks.clear()


if hasattr(os, 'register_at_fork'):
    os.register_at_fork(after_in_child=_forget_locks)
