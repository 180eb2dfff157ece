"""Locks on the file system, each held by one process and released by the system when that process
ends.
"""

from __future__ import annotations

import fcntl
import os
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

# Seconds after which a process that waits for a lock says so.
PATIENCE = 1.0


class LockedError(Exception):
    """Raised when another process holds a lock; ``holder`` names the process and its host."""

    def __init__(self, holder: str) -> None:
        super().__init__(f'locked by {holder}')
        self.holder = holder


class FileLock:
    """Holds an exclusive ``flock`` on a file, which names the process that holds it.

    The system releases the lock when the process ends, SIGKILL included. Processes forked while the
    lock is held do not share it.

    Args:
        path: the lock file; it is created, and stays unless :meth:`release` removes it.
    """

    _held: set[FileLock] = set()

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self._descriptor: int | None = None

    def acquire(self) -> None:
        """Takes the lock.

        Raises:
            LockedError: if another process holds it.
            OSError: if the file cannot be opened for writing, or its file system has no locks.
        """
        while self._descriptor is None:
            descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT, 0o666)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                # The former holder may have removed the file after it was opened here.
                if self._is_at_path(descriptor):
                    os.ftruncate(descriptor, 0)
                    os.pwrite(
                        descriptor, f'process {os.getpid()} on {socket.gethostname()}\n'.encode(), 0
                    )
                    self._descriptor, descriptor = descriptor, -1
            except BlockingIOError:
                raise LockedError(self._read_holder()) from None
            finally:
                if descriptor >= 0:
                    os.close(descriptor)
        self._held.add(self)

    def release(self, remove: bool = False) -> None:
        """Releases the lock if it is held; ``remove`` deletes the file first."""
        if self._descriptor is not None:
            if remove:
                self.path.unlink(missing_ok=True)
            os.close(self._descriptor)
            self._descriptor = None
            self._held.discard(self)

    def _is_at_path(self, descriptor: int) -> bool:
        try:
            return os.path.samestat(os.fstat(descriptor), os.stat(self.path))
        except FileNotFoundError:
            return False

    def _read_holder(self) -> str:
        # A process that has just taken the lock may not have written its name yet.
        for _ in range(20):
            if (
                holder := self.path.read_text(errors='replace').strip()
                if self.path.is_file()
                else ''
            ):
                return holder
            time.sleep(0.01)
        return 'another process'


def _close_in_child() -> None:
    # A forked process that kept the descriptor would hold the lock for as long as it lives.
    for lock in list(FileLock._held):
        lock.release()


os.register_at_fork(after_in_child=_close_in_child)


@contextmanager
def waiting_lock(path: str | Path, on_wait: Callable[[str], None]) -> Iterator[None]:
    """Holds the lock of a file within the context, after waiting for other processes to release it.

    Args:
        path: the lock file.
        on_wait: called once, with the holder, after a second of waiting.

    Raises:
        OSError: as for :meth:`FileLock.acquire`.
    """
    lock = FileLock(path)
    waited, told = 0.0, False
    while True:
        try:
            lock.acquire()
            break
        except LockedError as error:
            if waited >= PATIENCE and not told:
                on_wait(error.holder)
                told = True
        time.sleep(0.05)
        waited += 0.05
    try:
        yield
    finally:
        lock.release()
