"""Tests that checkpoints are complete or absent, and that damaged ones are skipped."""

import json
import os
import re
import shutil
import time

import pytest
import torch
from mae_plugin.engine.hooks.atomic_backend import DeferredRemoval
from mae_plugin.engine.hooks.checkpoint import SafeCheckpointHook
from mae_plugin.engine.resume.find import resume_point
from mae_plugin.engine.resume.work_dir import CheckpointPaths
from mae_plugin.utils import atomic_files as files
from mmengine.hooks import Hook

from ...conftest import run
from ..loops.test_train import STEPS, assert_identical, train


def names(folder):
    return sorted(path.name for path in folder.glob('*.pth*'))


def test_a_kill_while_writing_keeps_the_last_checkpoint(images, tmp_path, monkeypatch):
    """With one checkpoint to keep, it is removed only once its successor is on disk."""
    train(images, tmp_path, stop_after=4, **{'default_hooks.checkpoint.max_keep_ckpts': 1})
    assert names(tmp_path) == ['iter_3.pth']

    class Killed(BaseException):
        pass

    def killed(*_):
        raise Killed

    with monkeypatch.context() as patched:
        patched.setattr(files.os, 'replace', killed)
        with pytest.raises(Killed):
            train(images, tmp_path, resume=True, **{'default_hooks.checkpoint.max_keep_ckpts': 1})
    assert names(tmp_path) == ['iter_3.pth']
    train(images, tmp_path, resume=True, **{'default_hooks.checkpoint.max_keep_ckpts': 1})
    assert names(tmp_path) == [f'iter_{STEPS}.pth']


@pytest.mark.parametrize('damage', ['truncated', 'flipped', 'empty'])
def test_a_damaged_checkpoint_is_passed_over(images, tmp_path, damage):
    """Resumes from the checkpoint before a truncated, emptied or altered one."""
    train(images, tmp_path, stop_after=7)
    assert names(tmp_path) == ['iter_3.pth', 'iter_6.pth']
    newest = tmp_path / 'iter_6.pth'
    content = bytearray(newest.read_bytes())
    if damage == 'flipped':
        content[len(content) // 2] ^= 1
    newest.write_bytes(dict(truncated=content[:-100], flipped=content, empty=b'')[damage])
    losses, _ = train(images, tmp_path, resume=True)
    assert min(losses) == 3
    assert any(f'{newest} is damaged' in log.read_text() for log in tmp_path.glob('*/*.log'))


def test_nothing_whole_does_not_start_anew(images, tmp_path):
    """Starts from scratch only after the files were moved away, and logs it."""
    train(images, tmp_path, stop_after=4)
    (tmp_path / 'iter_3.pth').write_bytes(b'damaged')
    with pytest.raises(
        ValueError,
        match=r'none of the checkpoints in .*iter_3\.pth is damaged.*; to start anew, choose',
    ):
        train(images, tmp_path, resume=True)
    for name in ('iter_3.pth', 'last_checkpoint'):
        (tmp_path / name).unlink()
    losses, _ = train(images, tmp_path, resume=True)
    assert min(losses) == 0
    assert any(
        'training starts from scratch' in log.read_text() for log in tmp_path.glob('*/*.log')
    )


def test_which_checkpoint_is_the_newest(tmp_path):
    assert resume_point(CheckpointPaths.of(tmp_path)) is None
    run_of_one_step = dict(meta=dict(epoch=0, iter=1), state_dict={}, message_hub={})
    for i, name in enumerate(
        ['epoch_9', 'iter_2', 'epoch_10', 'best_accuracy_epoch_12', 'epoch_10-0a1b2c3d']
    ):
        torch.save(run_of_one_step, tmp_path / f'{name}.pth')
        os.utime(tmp_path / f'{name}.pth', (time.time() + i, time.time() + i))
    # By date, without evaluation's best and published ones.
    assert resume_point(CheckpointPaths.of(tmp_path)).name == 'epoch_10.pth'
    # What the last run wrote down goes first, also when the folder was moved since.
    for folder in (tmp_path, '/where/it/was/before'):
        (tmp_path / 'last_checkpoint').write_text(f'{folder}/iter_2.pth')
        assert resume_point(CheckpointPaths.of(tmp_path)).name == 'iter_2.pth'


def test_write_atomically(tmp_path, monkeypatch):
    path = tmp_path / 'a'
    files.write_atomically(path, b'old')

    def full(*_):
        raise OSError(28, 'No space left on device')

    monkeypatch.setattr(files.os, 'fsync', full)
    with pytest.raises(OSError, match='No space'):
        files.write_atomically(path, b'new')
    assert path.read_bytes() == b'old' and os.listdir(tmp_path) == ['a']


def test_best_checkpoint_is_replaced(tmp_path):
    """Removes the former best checkpoint unless the new one has the same name."""
    hook = SafeCheckpointHook(save_best='acc', rule='greater')
    hook.file_backend = DeferredRemoval()
    old, kept = tmp_path / 'best_1.pth', tmp_path / 'best_2.pth'
    for path in (old, kept):
        path.write_bytes(b'1')
        hook.file_backend.remove(path)
        assert path.exists()
    os.utime(kept, (1, 1))
    hook.file_backend.remove_outdated()
    assert not old.exists() and kept.exists()


def test_a_full_disk_keeps_the_checkpoint_and_the_training(images, small_disk, tmp_path, capfd):
    """Fills the disk after the first checkpoint: training continues, and resumes from it."""

    class Fills(Hook):
        priority = 'LOWEST'

        def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None):
            if runner.iter == 3:
                rest = shutil.disk_usage(small_disk).free
                (small_disk / 'filler').write_bytes(bytes(rest))

    import tests.engine.loops.test_train as resumable

    class Losses(resumable.Losses):
        def before_run(self, runner):
            seen.append(self.of_step)
            runner.register_hook(Fills())

    whole, weights = train(images, tmp_path / 'whole', interval=-1)
    changes = {'default_hooks.checkpoint.max_keep_ckpts': 1}
    seen = []
    with pytest.MonkeyPatch.context() as patch, pytest.raises(SystemExit) as ended:
        patch.setattr(resumable, 'Losses', Losses)
        train(images, small_disk, **changes)
    # Training went on to its end, but a run without its last checkpoint has failed.
    assert ended.value.code == 1
    (losses,) = seen
    assert losses == whole
    assert names(small_disk) == ['iter_3.pth']
    # On the console; the log is on the same disk.
    messages = ''.join(capfd.readouterr())
    failure = r'(?m)^.* - ERROR - .*NO CHECKPOINT: the checkpoint could not be written \(\[Errno 28\] No space left'
    assert len(re.findall(failure, messages)) == 3
    assert (
        f'free some space in {small_disk}. The last good one is kept, and training continues.'
        in messages
    )
    assert re.search(
        r'- ERROR - .*The last checkpoint of this run is not on disk: .*; free some space', messages
    )
    (small_disk / 'filler').unlink()
    rest, resumed = train(images, small_disk, resume=True, **changes)
    assert rest == {step: whole[step] for step in range(3, STEPS)}
    assert_identical(resumed, weights)
    assert names(small_disk) == [f'iter_{STEPS}.pth']


@pytest.mark.slow
def test_soak(tmp_path):
    """Kills real processes at any moment and while writing, kills workers, and sends SIGTERM."""
    run('tools/soak.py', '--kills', 18, '--json', tmp_path / 'figures.json')
    figures = json.loads((tmp_path / 'figures.json').read_text())
    assert figures['survived'] == figures['kills'] and list(figures['kills'].values()) == [
        5,
        5,
        4,
        4,
    ]
    assert figures['identical'] == figures['runs'] >= 1
