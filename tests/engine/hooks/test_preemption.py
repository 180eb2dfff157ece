"""Tests that signals end a run after a saved step, and that the run resumes exactly."""

import os
import signal
import subprocess
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from mae_plugin.engine.hooks.preemption import PreemptionHook, ignore_signals_except_parents
from mmengine.hooks import Hook
from mmengine.runner import BaseLoop
from torch.utils.data import DataLoader

from ..loops import test_train as resumable
from ..loops.test_train import STEPS, assert_identical, train


class Signals(Hook):
    """Sends a signal to this process in a step, and to its data-loader workers as well."""

    def __init__(self, step: int, number: int) -> None:
        self.step, self.number = step, number

    def before_train_iter(self, runner, batch_idx, data_batch=None):
        if runner.iter == self.step:
            workers = Path(f'/proc/self/task/{os.getpid()}/children').read_text().split()
            # From outside, as a worker does end on a signal from its parent.
            subprocess.run(['kill', f'-{int(self.number)}', str(os.getpid()), *workers], check=True)
            # A worker that dies of it would be noticed by now.
            time.sleep(0.3)


def stopped(images, work_dir, step, number=signal.SIGTERM, **arguments):
    """Returns the losses of a run that a signal ends."""
    notes = []

    class Losses(resumable.Losses):
        def before_run(self, runner):
            notes.append(self)
            runner.register_hook(Signals(step, number))

    handled = (signal.SIGTERM, signal.SIGUSR1, signal.SIGINT)
    former = [signal.getsignal(number) for number in handled]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(resumable, 'Losses', Losses)
        with pytest.raises(SystemExit) as ended:
            train(images, work_dir, **arguments)
    # One more while the process shuts down would change its exit code.
    assert signal.getsignal(signal.SIGTERM) is signal.getsignal(signal.SIGUSR1) is signal.SIG_IGN
    for handled_number, handler in zip(handled, former, strict=True):
        signal.signal(handled_number, handler)
    assert ended.value.code == (130 if number == signal.SIGINT else 75)
    return notes[0].of_step


def names(folder):
    return sorted(path.name for path in folder.glob('*.pth'))


@pytest.mark.parametrize(
    ('number', 'step', 'workers', 'by_epoch'),
    [
        (signal.SIGTERM, 6, 2, True),
        (signal.SIGUSR1, 4, 0, True),
        (signal.SIGUSR1, 1, 0, False),
        (signal.SIGINT, 6, 2, True),
    ],
)
def test_nothing_is_lost(images, tmp_path, number, step, workers, by_epoch):
    """Stops within an epoch, at its end, and between two regular checkpoints by iteration.

    Ctrl-C lost the steps since the last checkpoint, and ended in a traceback.
    """
    changes = {'default_hooks.checkpoint.by_epoch': by_epoch, 'interval': 1 if by_epoch else 4}
    whole, weights = train(images, tmp_path / 'whole', by_epoch=by_epoch)
    first = stopped(
        images, tmp_path / 'run', step, number, workers=workers, by_epoch=by_epoch, **changes
    )
    assert first == {i: whole[i] for i in range(step + 1)}
    assert f'iter_{step + 1}.pth' in names(tmp_path / 'run')
    rest, resumed = train(
        images, tmp_path / 'run', resume=True, workers=workers, by_epoch=by_epoch, **changes
    )
    assert rest == {i: whole[i] for i in range(step + 1, STEPS)}
    assert_identical(resumed, weights)
    # The checkpoint in between has gone with the next regular one.
    last = ['epoch_1.pth', 'epoch_2.pth'] if by_epoch else ['iter_10.pth', 'iter_8.pth']
    assert names(tmp_path / 'run') == last


def test_stops_where_gradients_are_whole(images, tmp_path):
    """Stops after the third of three accumulated steps, on a signal in the first."""
    changes = {'optim_wrapper.accumulative_counts': 3, 'train_dataloader.batch_size': 1}
    whole, weights = train(images, tmp_path / 'whole', **changes)
    first = stopped(images, tmp_path / 'run', 3, **changes)
    assert list(first) == list(range(6))
    rest, resumed = train(images, tmp_path / 'run', resume=True, **changes)
    assert rest == {i: whole[i] for i in range(6, len(whole))}
    assert_identical(resumed, weights)


def test_signals_are_given_back(images, tmp_path):
    before = signal.getsignal(signal.SIGTERM)
    train(images, tmp_path)
    assert signal.getsignal(signal.SIGTERM) is before
    # After an error at the next signal, as no hook learns of an error.
    train(images, tmp_path, stop_after=2)
    assert signal.getsignal(signal.SIGINT) is not signal.default_int_handler
    with pytest.raises(KeyboardInterrupt):
        signal.raise_signal(signal.SIGINT)
    assert signal.getsignal(signal.SIGTERM) is before
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_a_failed_run_is_not_started_again(images, tmp_path):
    """Does not end with 75 on SIGTERM after an error, as when torchrun ends the other ranks."""

    def end(number, frame) -> None:
        os._exit(75)

    end.before_training = True
    process = os.fork()
    if process == 0:
        signal.signal(signal.SIGTERM, end)
        train(images, tmp_path, stop_after=2)
        signal.raise_signal(signal.SIGTERM)
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]) == -signal.SIGTERM


class Repeated(Hook):
    """Sends a signal in a step, and a second one while the checkpoint of that step is written."""

    def __init__(self, first: int, second: int) -> None:
        self.first, self.second = first, second

    def before_train_iter(self, runner, batch_idx, data_batch=None):
        if runner.iter == 3:
            signal.raise_signal(self.first)

    def before_save_checkpoint(self, runner, checkpoint):
        if runner.iter == 3:
            signal.raise_signal(self.second)


@pytest.mark.parametrize(
    ('first', 'second', 'code', 'saved'),
    [
        (signal.SIGTERM, signal.SIGTERM, 75, True),
        (signal.SIGUSR1, signal.SIGTERM, 75, True),
        (signal.SIGINT, signal.SIGTERM, 130, True),
        (signal.SIGINT, signal.SIGINT, 130, False),
    ],
)
def test_told_twice(images, tmp_path, first, second, code, saved):
    """Ignores a second SIGTERM while saving; a second Ctrl-C ends without a traceback."""

    class Losses(resumable.Losses):
        def before_run(self, runner):
            runner.register_hook(Repeated(first, second))

    process = os.fork()
    if process == 0:
        ended = 1
        try:
            with open(tmp_path / 'messages', 'w') as file:
                os.dup2(file.fileno(), 2)
            resumable.Losses = Losses
            train(images, tmp_path, interval=100)
        except SystemExit as error:
            ended = error.code
        finally:
            os._exit(ended)
    assert os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]) == code
    assert names(tmp_path) == (['iter_4.pth'] if saved else [])
    messages = (tmp_path / 'messages').read_text()
    assert 'Traceback' not in messages and ('Ended at once, without saving.\n' in messages) != saved


def test_workers_of_other_loops():
    """Workers of validation inherited the handlers of the run, and did not end with it."""
    begun = torch.multiprocessing.get_context('fork').Value('i', 0)

    def initialize(worker_id: int) -> None:
        begun.value += 1

    class Loop(BaseLoop):
        def run(self) -> None:
            pass

    loader = DataLoader(range(4), num_workers=1, worker_init_fn=initialize, persistent_workers=True)
    runner = SimpleNamespace(_train_loop={}, _val_loop=Loop(None, loader), _test_loop=None)
    PreemptionHook().before_run(runner)
    batches = iter(loader)
    next(batches)
    worker = batches._workers[0]
    for number in (signal.SIGTERM, signal.SIGUSR1, signal.SIGINT):
        subprocess.run(['kill', f'-{int(number)}', str(worker.pid)], check=True)
    assert len(list(batches)) == 3 and worker.is_alive() and begun.value == 1
    worker.terminate()
    worker.join(20)
    assert worker.exitcode == 0


@pytest.mark.timeout(60)
def test_workers_end_with_a_killed_parent(tmp_path):
    """Ends workers that wait for a message from their killed parent."""
    reader, writer = os.pipe()
    parent = os.fork()
    if parent == 0:
        if os.fork() == 0:
            ignore_signals_except_parents()
            os.write(writer, b'up')
            time.sleep(300)
        time.sleep(300)
    os.close(writer)
    assert os.read(reader, 2) == b'up'
    os.kill(parent, signal.SIGKILL)
    os.waitpid(parent, 0)
    # The pipe ends when the worker does.
    assert os.read(reader, 1) == b''


@pytest.mark.parametrize('by_epoch', [True, False])
@pytest.mark.timeout(60)
def test_a_lock_that_a_killed_worker_holds(images, tmp_path, by_epoch):
    """Ends the run although a killed worker holds the lock that torch takes on shutdown."""

    class Losses(resumable.Losses):
        def before_train_iter(self, runner, batch_idx, data_batch=None):
            if runner.iter == 3:
                batches = runner.train_loop.dataloader_iterator
                batches = getattr(batches, '_iterator', batches)
                batches._workers_done_event._cond.acquire()
                batches._workers[0].kill()
                time.sleep(10)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(resumable, 'Losses', Losses)
        with pytest.raises(
            RuntimeError, match='DataLoader worker|worker of the data loader was killed'
        ):
            train(images, tmp_path, workers=2, by_epoch=by_epoch)


def test_a_worker_obeys_its_parent(tmp_path):
    """Ignores SIGTERM of another process, and ends on that of the worker's parent."""
    context = torch.multiprocessing.get_context('fork')
    ready = context.Event()

    def work():
        ignore_signals_except_parents()
        ready.set()
        time.sleep(60)

    worker = context.Process(target=work)
    worker.start()
    assert ready.wait(10)
    stranger = os.fork()
    if stranger == 0:
        os.kill(worker.pid, signal.SIGTERM)
        os._exit(0)
    os.waitpid(stranger, 0)
    worker.join(0.3)
    assert worker.is_alive()
    worker.terminate()
    worker.join(10)
    assert worker.exitcode == 0
