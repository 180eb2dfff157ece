"""What really went wrong in a data-loader worker, in one sentence."""

from __future__ import annotations

import re
import signal
from collections.abc import Sequence
from multiprocessing.process import BaseProcess

# How torch's data loader reports an error raised in a worker, and a worker that a signal killed.
_RAISED = re.compile(r'Caught (\w+) in (?:DataLoader worker process|pin memory thread)[^\n]*\.\n')
_KILLED = re.compile(r'DataLoader worker \(pid \d+\) is killed by signal: ([^.]+)\.')

_REASONS = {
    'SIGKILL': 'by the system perhaps, for want of memory; go on with --resume and a smaller num_workers',
    'SIGBUS': 'perhaps for want of shared memory (/dev/shm); go on with --resume and a smaller num_workers',
}
_OTHER_REASON = 'by a decoder perhaps, or by another user; go on with --resume'


def find_cause(error: BaseException, workers: Sequence[BaseProcess]) -> Exception | None:
    """Returns the error to raise in place of one that a data-loader worker caused, or None if none
    did.

    Args:
        error: what ended the training.
        workers: the workers of its data loader.

    Returns:
        For an error raised in a worker, one of the same type with its message alone, without the
        traceback that torch puts into it. For a worker that a signal killed, a RuntimeError that
        names the signal.
    """
    if not isinstance(error, Exception):
        return None
    text = str(error)
    if raised := _RAISED.match(text):
        message = _last_message(text, raised[1])
        # torch raises a RuntimeError in place of what cannot be made from a message alone.
        return type(error)(
            message if type(error).__name__ == raised[1] else f'{raised[1]}: {message}'
        )
    number = _killing_signal(text, workers)
    if number is None:
        return None
    name = signal.Signals(number).name
    return RuntimeError(
        f'a worker of the data loader was killed by {name}, {_REASONS.get(name, _OTHER_REASON)}'
    )


def _last_message(text: str, kind: str) -> str:
    """Returns the message that ends a traceback."""
    message = re.split(rf'\n(?:[\w.]+\.)?{kind}(?:: |\n|$)', text)[-1]
    return message.strip() or kind


def _killing_signal(text: str, workers: Sequence[BaseProcess]) -> int | None:
    """Returns the signal that killed a worker, or None if none was killed."""
    # The worker may be of another data loader, the validation's for example.
    if killed := _KILLED.search(text):
        return next(
            (number for number in signal.Signals if signal.strsignal(number) == killed[1]),
            signal.SIGKILL,
        )
    codes = [
        worker.exitcode for worker in workers if worker.exitcode is not None and worker.exitcode < 0
    ]
    return -codes[0] if codes else None
