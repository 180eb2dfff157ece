"""Tests that a second run in the same work dir is refused."""

import os
import socket

import pytest
from mae_plugin.engine.hooks import run_lock
from mae_plugin.engine.hooks.run_lock import RunLockHook, lock_early, lock_work_dir, unlock_work_dir
from mmengine.config import Config

from ...conftest import ROOT
from ...processes import FORK, holding
from ..loops.test_train import train


@pytest.fixture
def other_run(tmp_path):
    """Yields a process that holds the lock of ``tmp_path``."""
    with holding(lambda: lock_work_dir(tmp_path)) as process:
        yield process


def test_a_second_run_is_refused(images, tmp_path, other_run):
    """Both runs ended with 0 and overwrote each other's checkpoints."""
    messages = rf'process {other_run.pid} on {socket.gethostname()} is training in {tmp_path} already; .*work_dir'
    cfg = Config(dict(work_dir=str(tmp_path)))
    with pytest.raises(ValueError, match=messages):
        lock_early(cfg)
    with pytest.raises(ValueError, match=messages):
        train(images, tmp_path)
    assert not list(tmp_path.glob('*.pth'))
    other_run.kill()
    other_run.join()
    train(images, tmp_path)
    assert list(tmp_path.glob('*.pth'))
    # A run that has ended keeps nobody out.
    assert str(tmp_path) not in run_lock._locks and (tmp_path / '.run.lock').exists()


def test_started_twice_at_once(tmp_path):
    """Gives the work dir to exactly one of several processes that start together."""
    count, gate = 6, FORK.Barrier(6)
    results = FORK.SimpleQueue()

    def start() -> None:
        gate.wait()
        try:
            lock_work_dir(tmp_path / 'run')
            results.put(f'process {os.getpid()}')
        except ValueError as error:
            results.put(str(error))
        gate.wait()

    processes = [FORK.Process(target=start) for _ in range(count)]
    for process in processes:
        process.start()
    found = [results.get() for _ in processes]
    for process in processes:
        process.join()
    (holder,) = [text for text in found if 'is training' not in text]
    assert all(text == holder or text.startswith(f'{holder} on ') for text in found)


def test_testing_in_the_work_dir_of_a_run(tmp_path, other_run):
    """Locks for training alone, so a checkpoint can be tested during training."""

    class Testing:
        work_dir = str(tmp_path)
        _train_loop = dict(type='ResumableEpochLoop')

    RunLockHook().before_run(Testing)


def test_again_in_the_same_process(tmp_path):
    lock_work_dir(tmp_path)
    lock_work_dir(tmp_path / '.')
    unlock_work_dir(tmp_path)
    lock_work_dir(tmp_path)
    unlock_work_dir(tmp_path)


def test_without_locks(tmp_path, monkeypatch):
    """Starts a run on a file system without locks, with a line in the log."""
    messages = []

    def without_locks(*_) -> None:
        raise OSError(38, 'Function not implemented')

    monkeypatch.setattr('fcntl.flock', without_locks)
    monkeypatch.setattr(run_lock, 'print_log', lambda text, **_: messages.append(text))
    lock_work_dir(tmp_path)
    assert messages == [
        f'{tmp_path} cannot be locked ([Errno 38] Function not implemented), so a second run in it '
        'is not prevented.'
    ]


def test_every_training_has_the_hook(tmp_path):
    """Finds the hook in the plugin's configs, and adds it to other configs."""
    ours = Config.fromfile(ROOT / 'configs/mae/mae_vit-mini-p8_demo-64px.py')
    ours.work_dir = str(tmp_path / 'a')
    other = Config(dict(work_dir=str(tmp_path / 'b'), custom_hooks=[dict(type='EMAHook')]))
    for cfg in (ours, other):
        lock_early(cfg)
        unlock_work_dir(cfg.work_dir)
    assert ours.default_hooks.lock.type == 'RunLockHook'
    assert all(hook.type != 'mmpretrain.RunLockHook' for hook in ours.get('custom_hooks', ()))
    assert [hook.type for hook in other.custom_hooks] == ['EMAHook', 'mmpretrain.RunLockHook']
