"""Machines that are taken away: save, and say so to whoever started the run."""

from __future__ import annotations

import os
import signal
import sys
import threading

import torch
from mmengine.dist import barrier
from mmengine.hooks import Hook
from mmengine.logging import print_log
from mmengine.runner import Runner

from .checkpoint_hook import SafeCheckpointHook

SIGNALS = (signal.SIGTERM, signal.SIGUSR1)


class PreemptionHook(Hook):
    """On SIGTERM or SIGUSR1 to any process: saves after the step, and ends with an exit code that asks for more.

    Processes tell each other of a signal during the step that follows it, by an all-reduce on the CPU that nobody
    waits for, and all stop after the same one; with gradient accumulation, after one that updates the weights. The
    launch scripts turn the exit code into a requeue; ``--resume`` goes on exactly there.

    Args:
        exit_code: what the process ends with; 75 is the system's own for "try again later".
    """

    # After all that belongs to the step, the schedule and regular checkpoints included.
    priority = 'LOWEST'

    def __init__(self, exit_code: int = os.EX_TEMPFAIL) -> None:
        self.exit_code = exit_code
        self._noted = self._agreed = False
        self._group = self._asked = None
        self._former: dict = {}

    def before_train(self, runner: Runner) -> None:
        """Listens from now on."""
        if threading.current_thread() is threading.main_thread():
            self._former = {number: signal.signal(number, self._note) for number in SIGNALS}
        if runner.world_size > 1:
            self._group = torch.distributed.new_group(backend='gloo')

    def _note(self, number: int, frame: object) -> None:
        self._noted = True

    def after_train_iter(self, runner: Runner, batch_idx: int, data_batch=None, outputs: dict | None = None) -> None:
        """Stops here, if all know that they shall."""
        self._ask()
        # mmengine's wrapper counts steps, this one included.
        if self._agreed and runner.optim_wrapper.should_update():
            self._stop(runner)

    def _ask(self) -> None:
        """Learns what was asked during the last step, and asks again."""
        if self._group is None:
            self._agreed = self._noted
            return
        self._hear()
        if not self._agreed:
            self._flag = torch.tensor(int(self._noted))
            maximum = torch.distributed.ReduceOp.MAX
            self._asked = torch.distributed.all_reduce(self._flag, maximum, self._group, async_op=True)

    def _hear(self) -> None:
        if self._asked is not None:
            self._asked.wait()
            self._agreed, self._asked = self._agreed or bool(self._flag), None

    def _stop(self, runner: Runner) -> None:
        print_log(f'Told to stop: saving after step {runner.iter + 1}.', logger='current')
        for hook in runner.hooks:
            if isinstance(hook, SafeCheckpointHook):
                hook.save_between(runner)
        # The first process is still writing, and a launcher ends all as soon as one has ended.
        barrier()
        print_log(f'Stopped with exit code {self.exit_code}; --resume goes on from here.', logger='current')
        sys.exit(self.exit_code)

    def after_train(self, runner: Runner) -> None:
        """Gives the signals back."""
        self._hear()
        for number, handler in self._former.items():
            signal.signal(number, handler)


def obey_parent_alone(worker_id: int = 0) -> None:
    """Lets a data-loader worker end when its parent says so, not on signals that are meant for the parent.

    A scheduler sends its signal to every process of a job; a worker that died of it would take its parent along
    before that has saved.
    """
    parent = os.getppid()
    signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)

    def listen() -> None:
        while signal.sigwaitinfo(SIGNALS).si_pid != parent:
            pass
        os._exit(0)

    threading.Thread(target=listen, daemon=True).start()
