"""Ends a tool with one sentence on a signal that arrives before there is anything to save.

Tools import this module before others, which take seconds to import. Ctrl-C ends with 130. SIGTERM
and SIGUSR1 end training with 75, as they do later on (see PreemptionHook).
"""

import os
import signal
import sys
from types import FrameType

_PROCESS = os.getpid()
_TOOL = os.path.basename(sys.argv[0])


def _has_to_clean_up() -> bool:
    """Returns whether the tool has begun its work, and removes unfinished files on interruption."""
    return _TOOL not in ('train.py', 'test.py') and hasattr(sys.modules['__main__'], 'main')


def _end(number: int, frame: FrameType | None) -> None:
    """Ends the process on a signal."""
    if os.getpid() != _PROCESS:
        # Forked processes end with their parent.
        return
    if number == signal.SIGINT and _has_to_clean_up():
        raise KeyboardInterrupt
    sentence = 'interrupted' if number == signal.SIGINT else 'stopped before the first step'
    os.write(2, f'{_TOOL}: {sentence}\n'.encode())
    # The code that runs at this moment might catch or replace an exception.
    os._exit(128 + number if number == signal.SIGINT else os.EX_TEMPFAIL)


# PreemptionHook does not restore this handler after training has failed.
_end.before_training = True


def _print_briefly(kind: type, error: BaseException, trace: object) -> None:
    """Prints one line instead of a traceback on Ctrl-C."""
    if issubclass(kind, KeyboardInterrupt):
        print(f'{_TOOL}: interrupted', file=sys.stderr)
    else:
        sys.__excepthook__(kind, error, trace)


sys.excepthook = _print_briefly
signal.signal(signal.SIGINT, _end)
if _TOOL == 'train.py':
    signal.signal(signal.SIGUSR1, _end)
    # SLURM sends SIGTERM to the other tasks when one has failed, and they must not be requeued.
    if int(os.environ.get('SLURM_NTASKS') or 1) == 1:
        signal.signal(signal.SIGTERM, _end)
