"""Processes that end with the process that started them."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable

# Seconds between two looks at the parent.
_INTERVAL = 0.5
# Seconds that a rank has, after its launcher died, to save and to end by itself.
_GRACE = 60.0


def call_when_orphaned(action: Callable[[], None]) -> None:
    """Calls ``action`` in a thread of its own as soon as the parent of this process has ended."""
    parent = os.getppid()

    def watch() -> None:
        # An orphan's parent is init or whoever stands in for it.
        while os.getppid() == parent:
            time.sleep(_INTERVAL)
        action()

    threading.Thread(target=watch, name='parent watch', daemon=True).start()


def end_with_launcher() -> None:
    """Ends this rank when its launcher ends, even if SIGKILL ends the launcher.

    The rank first gets SIGTERM, on which training saves; it is killed if it is still there after a
    minute.
    """

    def end() -> None:
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(_GRACE)
        os.kill(os.getpid(), signal.SIGKILL)

    call_when_orphaned(end)
