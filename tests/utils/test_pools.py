"""Pools whose parent is interrupted or killed."""

import multiprocessing
import os
import signal
import time

import pytest
from mae_plugin.utils.pools import process_pool


def begin(pipe: int) -> None:
    global _pipe
    _pipe = pipe


def work() -> None:
    os.write(_pipe, b'.')
    time.sleep(300)


@pytest.mark.timeout(60)
def test_workers_end_with_a_killed_parent():
    """They waited for tasks forever, or wrote to files of the next run's workers."""
    reader, writer = os.pipe()
    parent = os.fork()
    if parent == 0:
        with process_pool(2, begin, writer) as pool:
            pool.submit(work)
            pool.submit(work)
            time.sleep(300)
    os.close(writer)
    assert os.read(reader, 1) + os.read(reader, 1) == b'..'
    os.kill(parent, signal.SIGKILL)
    os.waitpid(parent, 0)
    # The pipe closes with the last worker.
    assert os.read(reader, 1) == b''


@pytest.mark.timeout(60)
def test_ctrl_c_ends_the_workers_at_once(capfd):
    """Ctrl-C ends the workers without a traceback from each of them."""
    reader, writer = os.pipe()
    with pytest.raises(KeyboardInterrupt), process_pool(2, begin, writer) as pool:
        for _ in range(5):
            pool.submit(work)
        os.read(reader, 1)
        for worker in multiprocessing.active_children():
            os.kill(worker.pid, signal.SIGINT)
        raise KeyboardInterrupt
    assert capfd.readouterr().err == ''
