"""Processes that hold something while a test looks at it from outside."""

from __future__ import annotations

import multiprocessing
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from multiprocessing.process import BaseProcess

FORK = multiprocessing.get_context('fork')


@contextmanager
def holding(take: Callable[[], AbstractContextManager | None]) -> Iterator[BaseProcess]:
    """Yields a forked process that has called ``take``, and is within the context that this
    returned, if any.

    The process is killed at the end.
    """
    ready = FORK.Event()

    def hold() -> None:
        with take() or nullcontext():
            ready.set()
            time.sleep(300)

    process = FORK.Process(target=hold)
    process.start()
    try:
        assert ready.wait(60)
        yield process
    finally:
        process.kill()
        process.join()
