"""torchrun, whose workers hear the signals that ask for an early end, and whose exit code is theirs.

Of its own accord torchrun gives its workers half a minute after SIGTERM, dies of SIGUSR1, and always ends with 1.
"""

import contextlib
import os
import signal
import sys
from pathlib import Path
from types import FrameType

from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
from torch.distributed.run import main


def tell_workers(number: int, frame: FrameType | None) -> None:
    """Passes a request to stop on to every worker."""
    for worker in Path(f'/proc/self/task/{os.getpid()}/children').read_text().split():
        with contextlib.suppress(ProcessLookupError):
            os.kill(int(worker), signal.SIGUSR1)


if __name__ == '__main__':
    os.environ['PET_SIGNALS_TO_HANDLE'] = 'SIGINT,SIGHUP,SIGQUIT'
    for asked in (signal.SIGTERM, signal.SIGUSR1):
        signal.signal(asked, tell_workers)
    try:
        main()
    except ChildFailedError as error:
        codes = {failure.exitcode for failure in error.failures.values()}
        if os.EX_TEMPFAIL not in codes:
            raise
        sys.exit(os.EX_TEMPFAIL)
