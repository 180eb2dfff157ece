"""Ends a tool in one sentence on a signal that comes before there is anything to save.

Imported before all that takes seconds to import. Ctrl-C ends with 130; SIGTERM and SIGUSR1 end
training with 75, as they do later on (see PreemptionHook).
"""

import os
import signal
import sys
from types import FrameType

_PROCESS = os.getpid()
_TOOL = os.path.basename(sys.argv[0])


def _has_to_clean_up() -> bool:
    """Returns whether the tool is at work, and is one that removes unfinished files when it is
    interrupted.
    """
    return _TOOL not in ('train.py', 'test.py') and hasattr(sys.modules['__main__'], 'main')


def _end(number: int, frame: FrameType | None) -> None:
    if os.getpid() != _PROCESS:
        # Forked processes end with their parent.
        return
    if number == signal.SIGINT and _has_to_clean_up():
        raise KeyboardInterrupt
    sentence = 'interrupted' if number == signal.SIGINT else 'told to stop before the first step'
    os.write(2, f'{_TOOL}: {sentence}\n'.encode())
    # An exception might be caught, or replaced, by what happens to run now.
    os._exit(128 + number if number == signal.SIGINT else os.EX_TEMPFAIL)


# Read by PreemptionHook: not the handler of a training that has failed.
_end.before_training = True


def _print_briefly(kind: type, error: BaseException, trace: object) -> None:
    if issubclass(kind, KeyboardInterrupt):
        print(f'{_TOOL}: interrupted', file=sys.stderr)
    else:
        sys.__excepthook__(kind, error, trace)


sys.excepthook = _print_briefly
signal.signal(signal.SIGINT, _end)
if _TOOL == 'train.py':
    signal.signal(signal.SIGUSR1, _end)
    # SLURM ends the other tasks by SIGTERM when one has failed, which is no reason to start again.
    if int(os.environ.get('SLURM_NTASKS') or 1) == 1:
        signal.signal(signal.SIGTERM, _end)
