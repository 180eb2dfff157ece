"""Locks that are released with their process, and name their holder."""

import fcntl
import os
import signal
import socket
import time

import pytest
from mae_plugin.utils import locks
from mae_plugin.utils.locks import FileLock, LockedError, waiting_lock

from ..processes import holding


@pytest.fixture
def holder(tmp_path):
    """A process that holds ``tmp_path/lock`` and a child of it, forked while it held the lock."""

    def take() -> None:
        FileLock(tmp_path / 'lock').acquire()
        child = os.fork()
        if child == 0:
            time.sleep(60)
            os._exit(0)
        (tmp_path / 'child').write_text(str(child))

    with holding(take) as process:
        yield process
    os.kill(int((tmp_path / 'child').read_text()), signal.SIGKILL)


def test_one_holder(holder, tmp_path):
    """SIGKILL releases the lock, even if the process has children."""
    with pytest.raises(LockedError) as error:
        FileLock(tmp_path / 'lock').acquire()
    assert error.value.holder == f'process {holder.pid} on {socket.gethostname()}'
    holder.kill()
    holder.join()
    lock = FileLock(tmp_path / 'lock')
    lock.acquire()
    lock.acquire()
    assert (tmp_path / 'lock').read_text() == f'process {os.getpid()} on {socket.gethostname()}\n'
    lock.release(remove=True)
    assert not (tmp_path / 'lock').exists()


def test_a_lock_file_that_its_holder_removed(tmp_path, monkeypatch):
    """Opened before and locked after the removal, the file would be a lock that nobody checks."""
    first, second = FileLock(tmp_path / 'lock'), FileLock(tmp_path / 'lock')
    first.acquire()
    flock = fcntl.flock

    def remove_first(descriptor: int, operation: int) -> None:
        monkeypatch.undo()
        first.release(remove=True)
        flock(descriptor, operation)

    monkeypatch.setattr(fcntl, 'flock', remove_first)
    second.acquire()
    monkeypatch.undo()
    with pytest.raises(LockedError):
        FileLock(tmp_path / 'lock').acquire()
    second.release()


def test_who_is_waited_for(holder, tmp_path, monkeypatch):
    """A process that waited for a lock forever logged nothing."""
    monkeypatch.setattr(locks, 'PATIENCE', 0.1)
    logged = []

    def on_wait(who: str) -> None:
        logged.append(who)
        holder.kill()

    with waiting_lock(tmp_path / 'lock', on_wait):
        assert logged == [f'process {holder.pid} on {socket.gethostname()}']
        with pytest.raises(LockedError):
            FileLock(tmp_path / 'lock').acquire()
    FileLock(tmp_path / 'lock').acquire()
