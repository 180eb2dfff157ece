"""Reports errors of data-loader workers in one sentence, and ends the workers."""

from __future__ import annotations

import re
import signal
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from multiprocessing.process import BaseProcess

from mmengine.runner import BaseLoop

from ...utils._compat.mmengine import loader_iterator
from ...utils._compat.torch import kill_loader_workers, loader_workers

# Messages of torch's data loader for an error in a worker, and for a worker killed by a signal.
_RAISED = re.compile(r'Caught (\w+) in (?:DataLoader worker process|pin memory thread)[^\n]*\.\n')
_KILLED = re.compile(r'DataLoader worker \(pid \d+\) is killed by signal: ([^.]+)\.')

_REASONS = {
    'SIGKILL': 'by the system perhaps, for lack of memory; resume with a smaller num_workers',
    'SIGBUS': ('perhaps for lack of shared memory (/dev/shm); resume with a smaller num_workers'),
}
_OTHER_REASON = 'by a decoder perhaps, or by another user; resume the run'


@contextmanager
def ending_workers(loop: BaseLoop) -> Iterator[None]:
    """Ends the data-loader workers of a loop on an error, and raises the error of a worker.

    A normal shutdown takes locks that a killed worker may still hold. The run would hang, and other
    ranks with it.
    """
    try:
        yield
    except BaseException as error:
        batches = loader_iterator(loop.dataloader_iterator)
        cause = find_cause(error, loader_workers(batches))
        kill_loader_workers(batches)
        if cause is not None:
            raise cause from error
        raise


def find_cause(error: BaseException, workers: Sequence[BaseProcess]) -> Exception | None:
    """Returns the error to raise in place of one that a data-loader worker caused.

    Args:
        error: the error that ended training.
        workers: the workers of its data loader.

    Returns:
        For an error raised in a worker, one of the same type with its message alone, without the
        traceback that torch adds to it. For a worker killed by a signal, a RuntimeError that names
        the signal. None if no worker caused the error.
    """
    if not isinstance(error, Exception):
        return None
    text = str(error)
    if raised := _RAISED.match(text):
        message = _last_message(text, raised[1])
        # torch raises a RuntimeError for types that cannot be built from a message alone.
        if type(error).__name__ != raised[1]:
            message = f'{raised[1]}: {message}'
        return type(error)(message)
    number = _killing_signal(text, workers)
    if number is None:
        return None
    name = signal.Signals(number).name
    reason = _REASONS.get(name, _OTHER_REASON)
    return RuntimeError(f'a worker of the data loader was killed by {name}, {reason}')


def _last_message(text: str, kind: str) -> str:
    """Returns the message at the end of a traceback."""
    message = re.split(rf'\n(?:[\w.]+\.)?{kind}(?:: |\n|$)', text)[-1]
    return message.strip() or kind


def _killing_signal(text: str, workers: Sequence[BaseProcess]) -> int | None:
    """Returns the signal that killed a worker, or None if none was killed."""
    # The worker may be of another data loader, such as that of validation.
    if killed := _KILLED.search(text):
        for number in signal.Signals:
            if signal.strsignal(number) == killed[1]:
                return number
        return signal.SIGKILL
    for worker in workers:
        if worker.exitcode is not None and worker.exitcode < 0:
            return -worker.exitcode
    return None
