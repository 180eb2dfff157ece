"""Runs torchrun, passes signals to stop on to its workers, and ends with their exit code.

torchrun itself gives its workers half a minute after SIGTERM, is killed by SIGUSR1, and always ends
with 1.
"""

import contextlib
import os
import signal
import sys
from pathlib import Path
from types import FrameType

_INTERRUPTED = 128 + signal.SIGINT
# The exit code that signals requested; 0 without a signal.
_requested = 0


def signal_workers(number: int, frame: FrameType | None) -> None:
    """Passes a signal to stop on to every worker; ends at once if there is none yet."""
    global _requested
    _requested = _INTERRUPTED if number == signal.SIGINT else os.EX_TEMPFAIL
    workers = Path(f'/proc/self/task/{os.getpid()}/children').read_text().split()
    if not workers:
        os._exit(_requested)
    for worker in workers:
        with contextlib.suppress(ProcessLookupError):
            os.kill(int(worker), signal.SIGINT if number == signal.SIGINT else signal.SIGUSR1)


def exit_code(codes: set[int]) -> int:
    """Returns the exit code after workers with ``codes``; 0 if no signal stopped them."""
    if not _requested:
        # torchrun itself stops workers after another one has failed, and then the codes differ.
        return codes.pop() if codes in ({_INTERRUPTED}, {os.EX_TEMPFAIL}) else 0
    for code in (_INTERRUPTED, os.EX_TEMPFAIL):
        if code in codes:
            return code
    # A signal kills a worker that has no handlers yet.
    return _requested if codes <= {-signal.SIGUSR1, -signal.SIGTERM, -signal.SIGINT} else 0


def main() -> None:
    """Runs torchrun with handlers for signals to stop."""
    os.environ['PET_SIGNALS_TO_HANDLE'] = 'SIGHUP,SIGQUIT'
    handled = (signal.SIGTERM, signal.SIGUSR1, signal.SIGINT)
    for number in handled:
        signal.signal(number, signal_workers)
    # Imported here, as importing takes seconds and the handlers must be installed first.
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
