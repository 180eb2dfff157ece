"""Locks on the file system that state which process holds them, on top of the filelock package."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import filelock

# Seconds of waiting after which the holder of a lock is reported.
PATIENCE = 1.0
# Seconds between two attempts to acquire a lock.
_INTERVAL = 0.05


class LockedError(Exception):
    """Raised when another process holds a lock; ``holder`` names that process and its host."""

    def __init__(self, holder: str) -> None:
        super().__init__(f'locked by {holder}')
        self.holder = holder


class FileLock:
    """Exclusive lock on a file that contains the name of the process that holds the lock.

    The operating system releases the lock when the process ends, even after SIGKILL. A process
    forked while the lock is held does not hold it.

    Args:
        path: the lock file. It is created, and stays unless :meth:`release` removes it.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        # A lock that is only a file (fallback_to_soft) would outlive a killed process.
        self._lock = filelock.FileLock(
            self.path, thread_local=False, fallback_to_soft=False, on_acquired=_write_holder
        )

    def acquire(self) -> None:
        """Acquires the lock; has no effect if this object holds it already.

        Raises:
            LockedError: if another process holds the lock.
            OSError: if the file cannot be opened for writing, or its file system has no locks.
        """
        while not self._lock.is_locked:
            try:
                self._lock.acquire(blocking=False)
            except filelock.Timeout:
                # The former holder may have removed the file after it was opened here.
                if self.path.exists():
                    raise LockedError(self._read_holder()) from None
        _held.add(self)

    def release(self, remove: bool = False) -> None:
        """Releases the lock if this object holds it; ``remove`` deletes the file."""
        if not self._lock.is_locked:
            return
        if remove:
            # Before the release: afterwards, the file may be another process's lock.
            self.path.unlink(missing_ok=True)
        self._lock.release()
        _held.discard(self)

    def _read_holder(self) -> str:
        """Reads which process holds the lock."""
        # A process that has just acquired the lock may not have written its name yet.
        for _ in range(20):
            holder = ''
            if self.path.is_file():
                holder = self.path.read_text(errors='replace').strip()
            if holder:
                return holder
            time.sleep(0.01)
        return 'another process'


# filelock releases the lock of an object that is garbage-collected.
_held: set[FileLock] = set()


def _write_holder(descriptor: int) -> None:
    """Replaces the content of a lock file by the name of this process and its host."""
    os.ftruncate(descriptor, 0)
    os.lseek(descriptor, 0, os.SEEK_SET)
    os.write(descriptor, f'process {os.getpid()} on {socket.gethostname()}\n'.encode())


@contextmanager
def waiting_lock(path: str | Path, on_wait: Callable[[str], None]) -> Iterator[None]:
    """Holds the lock on a file in the context, after waiting until other processes release it.

    Args:
        path: the lock file.
        on_wait: called once, with the holder, after ``PATIENCE`` seconds of waiting.

    Raises:
        OSError: as for :meth:`FileLock.acquire`.
    """
    lock = FileLock(path)
    waited, reported = 0.0, False
    while True:
        try:
            lock.acquire()
            break
        except LockedError as error:
            if waited >= PATIENCE and not reported:
                on_wait(error.holder)
                reported = True
        time.sleep(_INTERVAL)
        waited += _INTERVAL
    try:
        yield
    finally:
        lock.release()
