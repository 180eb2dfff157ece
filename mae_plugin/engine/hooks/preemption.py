"""Saves and stops training on a signal, with an exit code for whoever started the run."""

from __future__ import annotations

import functools
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from types import FrameType

import torch
from mmengine.dist import barrier, is_main_process
from mmengine.hooks import Hook
from mmengine.logging import print_log
from mmengine.runner import BaseLoop, Runner
from torch.utils.data import DataLoader

from ...utils._compat.mmengine import built_loop
from .checkpoint import SafeCheckpointHook

# Windows has no SIGUSR1.
SIGNALS = tuple(getattr(signal, name) for name in ('SIGTERM', 'SIGUSR1') if hasattr(signal, name))
# The system's exit code for "try again later", which Windows does not define.
TRY_AGAIN_LATER = getattr(os, 'EX_TEMPFAIL', 75)
INTERRUPTED = 128 + signal.SIGINT


class PreemptionHook(Hook):
    """Saves after the present step and ends the process on SIGTERM, SIGUSR1 or Ctrl-C on any rank.

    SIGTERM and SIGUSR1 end with ``exit_code``, which the launch scripts turn into a requeue. The
    first Ctrl-C (SIGINT) ends with 130, and the second one ends at once without saving. Resuming
    continues from the step that was saved.

    The ranks exchange the requested exit code during the step after the signal, by an asynchronous
    all-reduce on the CPU. All ranks stop after the same step, which with gradient accumulation is
    one that updates the weights. From then on SIGTERM and SIGUSR1 are ignored until the process has
    ended.

    Args:
        exit_code: exit code after SIGTERM or SIGUSR1. The default of 75 is the system's code for
            "try again later".
    """

    # After all hooks of the step, such as those of schedules and regular checkpoints.
    priority = 'LOWEST'

    def __init__(self, exit_code: int = TRY_AGAIN_LATER) -> None:
        self.exit_code = exit_code
        # The exit codes requested on this rank, and agreed on by all ranks; 0 if none.
        self._requested = self._agreed = 0
        self._group = self._exchange = self._runner = None
        self._process = os.getpid()
        self._former: dict = {}

    def before_run(self, runner: Runner) -> None:
        """Makes the data-loader workers of all loops leave the signals to this process."""
        for name in ('train', 'val', 'test'):
            for loader in _loaders(built_loop(runner, name)):
                loader.worker_init_fn = functools.partial(_begin_worker, loader.worker_init_fn)

    def before_train(self, runner: Runner) -> None:
        """Installs the signal handlers."""
        self._runner, self._process = runner, os.getpid()
        # Python allows signal handlers in the main thread alone.
        if threading.current_thread() is threading.main_thread():
            for number in (*SIGNALS, signal.SIGINT):
                self._former[number] = signal.signal(number, self._handle)
        # A group of its own, as NCCL cannot reduce tensors on the CPU.
        if runner.world_size > 1:
            self._group = torch.distributed.new_group(backend='gloo')

    def _handle(self, number: int, frame: FrameType | None) -> None:
        """Stores the exit code that a signal requests."""
        if os.getpid() != self._process:
            # A data-loader worker that has just been forked.
            return
        if not self._is_training(frame):
            # An error has ended training, so the signal goes to the former handler. It must not
            # request a new start, which would fail again.
            for stop_signal in SIGNALS:
                if getattr(self._former.get(stop_signal), 'before_training', False):
                    self._former[stop_signal] = signal.SIG_DFL
            self._restore_handlers()
            signal.raise_signal(number)
        elif number != signal.SIGINT:
            self._requested = self._requested or self.exit_code
        elif self._requested:
            _write('Ended at once, without saving.')
            os._exit(INTERRUPTED)
        else:
            self._requested = INTERRUPTED
            if is_main_process():
                _write(
                    'Interrupted: saving after this step. Ctrl-C again ends at once, without '
                    'saving.'
                )

    def _is_training(self, frame: FrameType | None) -> bool:
        """Returns whether the signal interrupts a call of ``runner.train()``."""
        while frame is not None:
            if frame.f_code.co_name == 'train' and frame.f_locals.get('self') is self._runner:
                return True
            frame = frame.f_back
        return False

    def after_train_iter(
        self, runner: Runner, batch_idx: int, data_batch=None, outputs: dict | None = None
    ) -> None:
        """Stops if all ranks agreed to stop after this step."""
        self._agree()
        # mmengine's wrapper counts steps, this one included.
        if self._agreed and runner.optim_wrapper.should_update():
            self._stop(runner)

    def _agree(self) -> None:
        """Completes the exchange that began after the last step, and begins another one."""
        if self._group is None:
            self._agreed = self._requested
            return
        self._complete_exchange()
        if not self._agreed:
            self._code = torch.tensor(self._requested)
            maximum = torch.distributed.ReduceOp.MAX
            self._exchange = torch.distributed.all_reduce(
                self._code, maximum, self._group, async_op=True
            )

    def _complete_exchange(self) -> None:
        """Waits for the pending exchange, and stores the exit code that it agreed on."""
        if self._exchange is not None:
            self._exchange.wait()
            self._agreed, self._exchange = self._agreed or int(self._code), None

    def _stop(self, runner: Runner) -> None:
        """Saves a checkpoint, and ends the process with the agreed exit code."""
        # A second signal while saving would end the process with another code.
        if self._former:
            ignore_signals()
            self._former = {signal.SIGINT: self._former[signal.SIGINT]}
        print_log(f'Stopping on a signal: saving after step {runner.iter + 1}.', logger='current')
        saved = [
            hook.save_extra(runner) for hook in runner.hooks if isinstance(hook, SafeCheckpointHook)
        ]
        # The first rank is still writing, and a launcher ends all ranks as soon as one has ended.
        barrier()
        where = 'here' if all(saved) else 'the last good checkpoint'
        print_log(
            f'Stopped with exit code {self._agreed}; --resume continues from {where}.',
            logger='current',
        )
        sys.exit(self._agreed)

    def after_train(self, runner: Runner) -> None:
        """Restores the former signal handlers."""
        self._complete_exchange()
        self._restore_handlers()

    def _restore_handlers(self) -> None:
        """Restores the former signal handlers."""
        for number, handler in self._former.items():
            signal.signal(number, handler)
        self._former = {}


def ignore_signals() -> None:
    """Ignores SIGTERM and SIGUSR1 from now on, as the exit code of the process is decided."""
    for number in SIGNALS:
        signal.signal(number, signal.SIG_IGN)


def ignore_signals_except_parents(worker_id: int = 0) -> None:
    """Makes a data-loader worker ignore all signals except its parent's, and end with its parent.

    A scheduler sends its signal to every process of a job, and a terminal sends Ctrl-C to all. A
    worker that ended on it would end the run before the parent has saved.
    """
    global _worker
    if _worker == os.getpid():
        return
    _worker, parent = os.getpid(), os.getppid()
    if not hasattr(signal, 'sigtimedwait'):
        # Windows, where a worker does not get its parent's signals.
        return
    # Blocked signals stay pending, and the thread below receives them with their sender.
    signal.pthread_sigmask(signal.SIG_BLOCK, (*SIGNALS, signal.SIGINT))

    def wait_for_parent() -> None:
        """Waits for a signal of the parent, or for its end."""
        # A process whose parent has ended gets another parent.
        while os.getppid() == parent:
            received = signal.sigtimedwait(SIGNALS, 1.0)
            if received is not None and received.si_pid == parent:
                break
        os._exit(0)

    threading.Thread(target=wait_for_parent, daemon=True).start()


# The process in which `ignore_signals_except_parents` was called, so that it acts once.
_worker: int | None = None


def _begin_worker(initialize: Callable[[int], None] | None, worker_id: int) -> None:
    """Initializes a data-loader worker."""
    ignore_signals_except_parents()
    if initialize is not None:
        initialize(worker_id)


def _loaders(loop: BaseLoop | None) -> Iterator[DataLoader]:
    """Yields the data loaders of a loop; none for None."""
    for loader in vars(loop).values() if loop is not None else ():
        if isinstance(loader, DataLoader):
            yield loader


def _write(sentence: str) -> None:
    """Writes to stderr from a signal handler, where print() is not safe."""
    os.write(2, f'{sentence}\n'.encode())
