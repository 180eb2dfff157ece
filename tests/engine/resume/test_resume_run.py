"""Tests that resumed runs do what is due, and do not succeed without training."""

import shutil

import pytest
from mae_plugin.engine import SafeCheckpointHook
from mmengine.hooks import Hook
from mmengine.registry import LOOPS
from mmengine.runner import BaseLoop
from torch.utils.data import DataLoader

from ..hooks.test_checkpoint import names
from ..loops.test_train import train


@LOOPS.register_module(force=True)
class Validates(BaseLoop):
    """A validation whose accuracy is the epoch; interrupted in epoch ``killed_in``."""

    epochs: list = []

    def __init__(self, runner, dataloader, evaluator, killed_in: int = 0) -> None:
        self._runner, self.dataloader, self.killed_in = runner, DataLoader([0]), killed_in

    def run(self) -> dict:
        self.runner.call_hook('before_val')
        self.runner.call_hook('before_val_epoch')
        if self.runner.epoch == self.killed_in:
            raise KeyboardInterrupt
        self.epochs.append(self.runner.epoch)
        self.runner.call_hook('after_val_epoch', metrics=dict(accuracy=float(self.runner.epoch)))
        self.runner.call_hook('after_val')


def settings(killed_in: int = 0, **more: object) -> dict:
    return {
        'val_cfg': dict(type='Validates', killed_in=killed_in),
        'val_dataloader': dict(batch_size=1),
        'val_evaluator': [],
        'default_hooks.checkpoint.by_epoch': True,
        'default_hooks.checkpoint.save_best': 'accuracy',
        'default_hooks.checkpoint.rule': 'greater',
        'param_scheduler.warmup': 0,
        **more,
    }


@pytest.fixture(scope='module')
def killed(images, tmp_path_factory):
    """Yields a run of two epochs that was killed in its last validation, and its data."""
    folder = tmp_path_factory.mktemp('killed')
    shutil.copytree(images, folder / 'images')
    with pytest.raises(KeyboardInterrupt):
        train(folder / 'images', folder / 'run', interval=1, **settings(killed_in=2))
    assert names(folder / 'run') == ['best_accuracy_epoch_1.pth', 'epoch_1.pth', 'epoch_2.pth']
    return folder


def log_of_last(work_dir) -> str:
    return max(work_dir.glob('*/*.log'), key=lambda path: path.stat().st_mtime_ns).read_text()


def test_validation_is_made_up_for(killed, tmp_path):
    """The resumed run skipped the last validation and its best checkpoint."""
    shutil.copytree(killed / 'run', tmp_path / 'run')
    Validates.epochs.clear()
    losses, _ = train(killed / 'images', tmp_path / 'run', interval=1, resume=True, **settings())
    assert losses == {} and Validates.epochs == [2]
    assert names(tmp_path / 'run') == ['best_accuracy_epoch_2.pth', 'epoch_1.pth', 'epoch_2.pth']
    log = log_of_last(tmp_path / 'run')
    assert (
        'The checkpoint is trained for all 2 epochs of train_cfg.max_epochs, so no step is left'
        in log
    )
    assert 'accuracy: 2.0' in log
    # The original, of which this work dir is a copy, keeps its best checkpoint.
    assert names(killed / 'run') == ['best_accuracy_epoch_1.pth', 'epoch_1.pth', 'epoch_2.pth']

    # Now it is done. More epochs go on, with more data, which is noticed.
    shutil.copytree(killed / 'images', tmp_path / 'images')
    shutil.copy(next((tmp_path / 'images').rglob('*.jpg')), tmp_path / 'images' / 'z.jpg')
    more = settings(**{'train_cfg.max_epochs': 3})
    losses, _ = train(tmp_path / 'images', tmp_path / 'run', interval=1, resume=True, **more)
    assert list(losses) == list(range(10, 16)) and Validates.epochs == [2, 3]
    assert '23 samples then and 24 now' in log_of_last(tmp_path / 'run')


@pytest.mark.parametrize(
    ('changes', 'sentence'),
    [
        (
            {'train_cfg.max_epochs': 1},
            r'trained for 2 epochs already, beyond train_cfg\.max_epochs=1, so nothing would be '
            r'trained; set',
        ),
        (
            {'optim_wrapper.optimizer': dict(_delete_=True, type='SGD', lr=1.0)},
            r'another config: its optimizer is AdamW, and optim_wrapper\.optimizer\.type is SGD',
        ),
    ],
)
def test_another_config_is_refused(killed, tmp_path, changes, sentence):
    """Raises the plugin's error, instead of training 0 steps."""
    shutil.copytree(killed / 'run', tmp_path / 'run')
    with pytest.raises(ValueError, match=sentence):
        train(killed / 'images', tmp_path / 'run', interval=1, resume=True, **settings(**changes))
    assert names(tmp_path / 'run') == ['best_accuracy_epoch_1.pth', 'epoch_1.pth', 'epoch_2.pth']


@pytest.mark.parametrize(
    ('changes', 'sentence'),
    [
        (
            {'train_dataloader.batch_size': 32},
            r'no step \(23 images, 32 per step and process\); make train_dataloader',
        ),
        (
            {
                'train_dataloader.batch_size': 32,
                'train_cfg': dict(_delete_=True, type='EpochBasedTrainLoop', max_epochs=2),
            },
            'fewer training images than one batch',
        ),
        ({'train_cfg.max_epochs': 0}, r'train_cfg\.max_epochs=0 trains nothing'),
    ],
)
def test_no_step_at_all(images, tmp_path, changes, sentence):
    """Without a schedule, a dataset too small for one step ended with success."""
    with pytest.raises(ValueError, match=sentence):
        train(images, tmp_path, **{'param_scheduler': None, **changes})


class Spoils(Hook):
    priority = 'HIGH'

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None):
        if runner.iter == 9:
            next(runner.model.parameters()).data.fill_(float('nan'))


def test_a_last_checkpoint_that_was_not_written(images, tmp_path):
    """Ends with exit code 1 if the last weights are not finite, and keeps the last checkpoint."""
    changes = dict(custom_hooks=[dict(type='Spoils')])
    from mmengine.registry import HOOKS

    HOOKS.register_module(module=Spoils, force=True)
    with pytest.raises(SystemExit) as ended:
        train(images, tmp_path, **changes)
    assert ended.value.code == 1
    assert names(tmp_path) == ['iter_6.pth', 'iter_9.pth']
    assert (
        'The last checkpoint of this run is not on disk: some weights are not finite'
        in log_of_last(tmp_path)
    )


def test_a_full_disk_while_validating(images, small_disk, monkeypatch):
    """Writes metrics, best checkpoint and visualizer; only training steps were covered."""

    def fill(hook, runner):
        if rest := shutil.disk_usage(small_disk).free:
            (small_disk / f'filler {runner.epoch}').write_bytes(bytes(rest))

    monkeypatch.setattr(SafeCheckpointHook, 'before_val', fill, raising=False)
    Validates.epochs.clear()
    with pytest.raises(SystemExit) as ended:
        train(images, small_disk, interval=2, **settings())
    # The first epoch's checkpoint is not due, so what is lost is the last.
    assert ended.value.code == 1 and Validates.epochs == [1, 2]
    assert names(small_disk) == []
