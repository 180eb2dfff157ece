"""torchrun that passes requests to stop on to its workers, and ends with their exit code.

Of its own accord torchrun gives its workers half a minute after SIGTERM, dies of SIGUSR1, and
always ends with 1.
"""

import contextlib
import os
import signal
import sys
from pathlib import Path
from types import FrameType

_INTERRUPTED = 128 + signal.SIGINT
# The exit code that signals have asked for, 0 if none came.
_asked = 0


def tell_workers(number: int, frame: FrameType | None) -> None:
    """Passes a request to stop on to every worker; ends at once if there is none yet."""
    global _asked
    _asked = _INTERRUPTED if number == signal.SIGINT else os.EX_TEMPFAIL
    workers = Path(f'/proc/self/task/{os.getpid()}/children').read_text().split()
    if not workers:
        os._exit(_asked)
    for worker in workers:
        with contextlib.suppress(ProcessLookupError):
            os.kill(int(worker), signal.SIGINT if number == signal.SIGINT else signal.SIGUSR1)


def exit_code(codes: set[int]) -> int:
    """Returns the code to end with after workers that ended with ``codes``; 0 if they ended
    unasked.
    """
    if not _asked:
        # A worker that ends because another one failed has been told to stop by torchrun, not by a
        # scheduler.
        return codes.pop() if codes in ({_INTERRUPTED}, {os.EX_TEMPFAIL}) else 0
    for code in (_INTERRUPTED, os.EX_TEMPFAIL):
        if code in codes:
            return code
    # A worker dies of a signal that comes before it handles any.
    return _asked if codes <= {-signal.SIGUSR1, -signal.SIGTERM, -signal.SIGINT} else 0


def main() -> None:
    os.environ['PET_SIGNALS_TO_HANDLE'] = 'SIGHUP,SIGQUIT'
    handled = (signal.SIGTERM, signal.SIGUSR1, signal.SIGINT)
    for number in handled:
        signal.signal(number, tell_workers)
    # This takes seconds.
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.run import main as run

    try:
        run()
    except ChildFailedError as error:
        code = exit_code({failure.exitcode for failure in error.failures.values()})
        if not code:
            raise
        for number in handled:
            signal.signal(number, signal.SIG_IGN)
        sys.exit(code)


if __name__ == '__main__':
    main()
