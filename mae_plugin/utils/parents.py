"""Processes that end with the process that started them."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable

# Seconds between two checks of the parent.
_INTERVAL = 0.5
# Seconds that a rank has to save and end by itself after its launcher died.
_GRACE = 60.0


def call_when_orphaned(action: Callable[[], None]) -> None:
    """Calls ``action`` in a separate thread as soon as the parent of this process has ended."""
    parent = os.getppid()

    def watch() -> None:
        """Calls the action once the parent has changed."""
        # The parent of an orphan is init or its substitute.
        while os.getppid() == parent:
            time.sleep(_INTERVAL)
        action()

    threading.Thread(target=watch, name='parent watch', daemon=True).start()


def end_with_launcher() -> None:
    """Ends this rank when its launcher ends, even if SIGKILL ends the launcher.

    The rank first receives SIGTERM, on which training saves a checkpoint. If it still runs after a
    minute, it is killed.
    """

    def end() -> None:
        """Ends this process, first by SIGTERM, then by SIGKILL."""
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(_GRACE)
        os.kill(os.getpid(), signal.SIGKILL)

    call_when_orphaned(end)
