"""One run at a time in a work dir."""

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
# The locks of this process by work dir. A process that trains twice in one work dir does so one
# after the other.
_locks: dict[str, FileLock] = {}


class RunLockHook(Hook):
    """Refuses to train in a work dir in which another process trains.

    The first rank holds a lock on ``.run.lock`` in the work dir until the training ends, or its
    process does. Testing is not affected. On file systems without locks training goes on without
    one.

    Raises:
        ValueError: on all ranks, if another process holds the lock; the sentence names it and its
            host.
    """

    # Before anything is read from the work dir or written to it.
    priority = 'HIGHEST'

    def before_run(self, runner: Runner) -> None:
        """Takes the lock."""
        if built_loop(runner, 'train') is not None:
            lock_work_dir(runner.work_dir)

    def after_run(self, runner: Runner) -> None:
        """Releases the lock."""
        unlock_work_dir(runner.work_dir)


def lock_work_dir(work_dir: str | Path) -> None:
    """Takes the lock of a work dir for this process, on the first rank; again without effect.

    Raises:
        ValueError: on all ranks, if another process holds the lock.
    """
    refusal = [_take(Path(work_dir)) if is_main_process() else None]
    # A rank that ended alone would leave the others waiting.
    broadcast_object_list(refusal)
    if refusal[0] is not None:
        raise ValueError(refusal[0])


def lock_early(cfg: Config) -> None:
    """Takes the lock of a config's work dir before its Runner is built, which writes there, and
    lets the hook keep it.

    Ranks that are not connected yet leave that to the hook.

    Raises:
        ValueError: if another process holds the lock.
    """
    if 'lock' not in (cfg.get('default_hooks') or {}):
        cfg.custom_hooks = [
            *(cfg.get('custom_hooks') or ()),
            dict(type='mmpretrain.RunLockHook', priority='HIGHEST'),
        ]
    if cfg.get('launcher', 'none') == 'none' or is_distributed():
        lock_work_dir(cfg.work_dir)


def unlock_work_dir(work_dir: str | Path) -> None:
    """Releases the lock of a work dir if this process holds it."""
    if lock := _locks.pop(os.path.realpath(work_dir), None):
        lock.release()


def _take(work_dir: Path) -> str | None:
    """Takes the lock; returns why it cannot be taken, if another process holds it."""
    place = os.path.realpath(work_dir)
    if place in _locks:
        return None
    lock = FileLock(work_dir / _NAME)
    try:
        work_dir.mkdir(parents=True, exist_ok=True)
        lock.acquire()
    except LockedError as error:
        return (
            f'{error.holder} is training in {work_dir} already; wait until it has ended, end it, '
            'or choose another '
            'folder with --work-dir'
        )
    except OSError as error:
        text = f'Nothing keeps a second run out of {work_dir}, as it cannot be locked ({error}).'
        print_log(text, logger='current', level=logging.WARNING)
        return None
    _locks[place] = lock
    return None


def _forget_in_child() -> None:
    _locks.clear()


if hasattr(os, 'register_at_fork'):
    os.register_at_fork(after_in_child=_forget_in_child)
