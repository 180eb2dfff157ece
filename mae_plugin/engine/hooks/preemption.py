"""Stops training on a signal: saves, and ends with an exit code that tells whoever started the
run.
"""

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
    """Saves after the step and ends the process when SIGTERM, SIGUSR1 or Ctrl-C reaches any rank.

    SIGTERM and SIGUSR1 end with ``exit_code``, which the launch scripts turn into a requeue; the
    first Ctrl-C (SIGINT) ends with 130, and the second one ends at once without saving.
    ``--resume`` goes on from the step that was saved.

    The ranks exchange the exit code that they were asked for during the step that follows the
    signal, by an all-reduce on the CPU that nobody waits for. All of them stop after the same step;
    with gradient accumulation, after one that updates the weights. From then on SIGTERM and SIGUSR1
    are ignored, until the process has ended.

    Args:
        exit_code: exit code after SIGTERM or SIGUSR1; 75 is the system's own for "try again later".
    """

    # After all that belongs to the step, the schedule and regular checkpoints included.
    priority = 'LOWEST'

    def __init__(self, exit_code: int = TRY_AGAIN_LATER) -> None:
        self.exit_code = exit_code
        # The exit codes that were asked of this rank, and that all ranks know of; 0 if none.
        self._asked = self._agreed = 0
        self._group = self._exchange = self._runner = None
        self._process = os.getpid()
        self._former: dict = {}

    def before_run(self, runner: Runner) -> None:
        """Makes the data-loader workers of all loops leave the signals to this process."""
        for name in ('train', 'val', 'test'):
            for loader in _loaders(built_loop(runner, name)):
                loader.worker_init_fn = functools.partial(_begin_worker, loader.worker_init_fn)

    def before_train(self, runner: Runner) -> None:
        """Handles the signals from now on."""
        self._runner, self._process = runner, os.getpid()
        if threading.current_thread() is threading.main_thread():
            for number in (*SIGNALS, signal.SIGINT):
                self._former[number] = signal.signal(number, self._note)
        if runner.world_size > 1:
            self._group = torch.distributed.new_group(backend='gloo')

    def _note(self, number: int, frame: FrameType | None) -> None:
        """Notes the exit code that a signal asks for."""
        if os.getpid() != self._process:
            # A data-loader worker that has just been forked.
            return
        if not self._is_training(frame):
            # An error has ended the training, so the signal is not this hook's any more. Nor does
            # it ask for another start, which would fail again.
            for tried in SIGNALS:
                if getattr(self._former.get(tried), 'before_training', False):
                    self._former[tried] = signal.SIG_DFL
            self._give_back()
            signal.raise_signal(number)
        elif number != signal.SIGINT:
            self._asked = self._asked or self.exit_code
        elif self._asked:
            _write('Ended at once, without saving.')
            os._exit(INTERRUPTED)
        else:
            self._asked = INTERRUPTED
            if is_main_process():
                _write(
                    'Interrupted: saving after this step. Ctrl-C again ends at once, without '
                    'saving.'
                )

    def _is_training(self, frame: FrameType | None) -> bool:
        """Returns whether ``runner.train()`` is among the calls that a signal interrupts."""
        while frame is not None:
            if frame.f_code.co_name == 'train' and frame.f_locals.get('self') is self._runner:
                return True
            frame = frame.f_back
        return False

    def after_train_iter(
        self, runner: Runner, batch_idx: int, data_batch=None, outputs: dict | None = None
    ) -> None:
        """Stops after this step if all ranks know that they have to."""
        self._agree()
        # mmengine's wrapper counts steps, this one included.
        if self._agreed and runner.optim_wrapper.should_update():
            self._stop(runner)

    def _agree(self) -> None:
        """Finishes the exchange that began after the last step, and begins another one."""
        if self._group is None:
            self._agreed = self._asked
            return
        self._finish_exchange()
        if not self._agreed:
            self._code = torch.tensor(self._asked)
            maximum = torch.distributed.ReduceOp.MAX
            self._exchange = torch.distributed.all_reduce(
                self._code, maximum, self._group, async_op=True
            )

    def _finish_exchange(self) -> None:
        if self._exchange is not None:
            self._exchange.wait()
            self._agreed, self._exchange = self._agreed or int(self._code), None

    def _stop(self, runner: Runner) -> None:
        # A second signal would otherwise end the process with another code while it saves or shuts
        # down.
        if self._former:
            ignore_signals()
            self._former = {signal.SIGINT: self._former[signal.SIGINT]}
        print_log(f'Told to stop: saving after step {runner.iter + 1}.', logger='current')
        saved = [
            hook.save_between(runner)
            for hook in runner.hooks
            if isinstance(hook, SafeCheckpointHook)
        ]
        # The first process is still writing, and a launcher ends all as soon as one has ended.
        barrier()
        where = 'here' if all(saved) else 'the last good checkpoint'
        print_log(
            f'Stopped with exit code {self._agreed}; --resume goes on from {where}.',
            logger='current',
        )
        sys.exit(self._agreed)

    def after_train(self, runner: Runner) -> None:
        """Restores the former signal handlers."""
        self._finish_exchange()
        self._give_back()

    def _give_back(self) -> None:
        for number, handler in self._former.items():
            signal.signal(number, handler)
        self._former = {}


def ignore_signals() -> None:
    """Ignores SIGTERM and SIGUSR1 from now on, as the exit code of the process is decided."""
    for number in SIGNALS:
        signal.signal(number, signal.SIG_IGN)


def obey_parent_alone(worker_id: int = 0) -> None:
    """Makes a data-loader worker end when its parent says so or ends, not on signals that are meant
    for the parent.

    A scheduler sends its signal to every process of a job, and a terminal sends Ctrl-C to all; a
    worker that died of it would end the run before the parent has saved.
    """
    global _obedient
    if _obedient == os.getpid():
        return
    _obedient, parent = os.getpid(), os.getppid()
    signal.pthread_sigmask(signal.SIG_BLOCK, (*SIGNALS, signal.SIGINT))

    def listen() -> None:
        while os.getppid() == parent:
            received = signal.sigtimedwait(SIGNALS, 1.0)
            if received is not None and received.si_pid == parent:
                break
        os._exit(0)

    threading.Thread(target=listen, daemon=True).start()


# The process that obeys its parent alone, so that none does it twice.
_obedient: int | None = None


def _begin_worker(initialize: Callable[[int], None] | None, worker_id: int) -> None:
    obey_parent_alone()
    if initialize is not None:
        initialize(worker_id)


def _loaders(loop: BaseLoop | None) -> Iterator[DataLoader]:
    """Yields the data loaders of a loop that is built."""
    if loop is not None:
        for loader in vars(loop).values():
            if isinstance(loader, DataLoader):
                yield loader


def _write(sentence: str) -> None:
    # print() is not safe in a signal handler.
    os.write(2, f'{sentence}\n'.encode())
