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
    """Yields a pool of forked processes, which end with this one, even if SIGKILL ends it.

    An error ends the pool after the current tasks, and Ctrl-C ends it at once.

    Args:
        workers: number of processes; one for each core if None.
        initializer: called with ``arguments`` in each process.
        arguments: arguments of the initializer.

    Raises:
        RuntimeError: if the system killed a worker.
    """
    others = set(multiprocessing.active_children())
    context = multiprocessing.get_context('fork')
    begin: Callable[..., None] = begin_worker
    with ProcessPoolExecutor(workers, context, begin, (initializer, *arguments)) as pool:
        try:
            yield pool
        except BaseException as error:
            # Ctrl-C and SystemExit do not wait for the current tasks.
            if not isinstance(error, Exception):
                for worker in set(multiprocessing.active_children()) - others:
                    worker.terminate()
            pool.shutdown(cancel_futures=True)
            if isinstance(error, BrokenProcessPool):
                raise RuntimeError(
                    'the system killed a worker, perhaps for lack of memory; start again with '
                    'fewer workers to continue from here'
                ) from error
            raise


def begin_worker(initializer: Callable, *arguments: object) -> None:
    """Initializes a worker, which ends with its parent and leaves Ctrl-C to it."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    call_when_orphaned(lambda: os._exit(1))
    initializer(*arguments)
