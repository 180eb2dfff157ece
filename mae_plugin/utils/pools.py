"""Pools of processes that end with the process that started them."""

from __future__ import annotations

import multiprocessing
import os
import signal
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager

from .parents import call_when_orphaned


@contextmanager
def process_pool(
    workers: int | None, initializer: Callable, *arguments: object
) -> Iterator[ProcessPoolExecutor]:
    """Yields a pool of forked processes; an error ends it after the present tasks, Ctrl-C at once.

    The processes end with this one, even if SIGKILL ends it.

    Args:
        workers: number of processes; one for each core if None.
        initializer: called with ``arguments`` in each process.
        arguments: of the initializer.

    Raises:
        RuntimeError: if the system killed a worker.
    """
    others = set(multiprocessing.active_children())
    context = multiprocessing.get_context('fork')
    with ProcessPoolExecutor(workers, context, begin_worker, (initializer, *arguments)) as pool:
        try:
            yield pool
        except BaseException as error:
            if not isinstance(error, Exception):
                for worker in set(multiprocessing.active_children()) - others:
                    worker.terminate()
            pool.shutdown(cancel_futures=True)
            if isinstance(error, BrokenProcessPool):
                raise RuntimeError(
                    'the system killed a worker, perhaps for want of memory; start again with '
                    'fewer workers to '
                    'go on from here'
                ) from error
            raise


def begin_worker(initializer: Callable, *arguments: object) -> None:
    """Begins a process of a pool: it leaves Ctrl-C to its parent, and ends with it."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    call_when_orphaned(lambda: os._exit(1))
    initializer(*arguments)
