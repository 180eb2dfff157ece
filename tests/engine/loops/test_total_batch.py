"""Tests the total batch size, and the learning rate that follows from it."""

import copy

import pytest
import torch
from mae_plugin.engine.config.total_batch import keep_total_batch, set_total_batch
from mae_plugin.engine.loops import total_batch as module
from mae_plugin.engine.loops.total_batch import TotalBatch
from mae_plugin.engine.resume.same_run import convert_steps
from mmengine.config import Config

from ...conftest import FINETUNE, LINEAR, PRETRAIN, ROOT
from .test_train import train


@pytest.fixture
def on_gpus(monkeypatch):
    monkeypatch.setattr(module.torch.cuda, 'is_available', lambda: True)


@pytest.mark.parametrize(
    ('config', 'batch', 'line'),
    [
        (PRETRAIN, (8, 512, 1), 'lr 2.4e-3 = 1.5e-4 × 4096 / 256 (8 GPUs × 512 × 1)'),
        (PRETRAIN, (1, 64, 64), 'lr 2.4e-3 = 1.5e-4 × 4096 / 256 (1 GPU × 64 × 64)'),
        (
            PRETRAIN,
            (64, 64, 1, 4),
            'lr 2.4e-3 = 1.5e-4 × 4096 / 256 (64 GPUs × 64 × 1, 4 crops of each image)',
        ),
        (PRETRAIN, (1, 512, 1), 'lr 3e-4 = 1.5e-4 × 512 / 256 (1 GPU × 512 × 1)'),
        (FINETUNE, (4, 128, 2), 'lr 2e-3 = 5e-4 × 1024 / 256 (4 GPUs × 128 × 2)'),
        (LINEAR, (8, 2048, 1), 'lr 6.4 = 0.1 × 16384 / 256 (8 GPUs × 2048 × 1)'),
    ],
)
def test_the_line_at_the_start(on_gpus, config, batch, line):
    cfg = Config.fromfile(ROOT / config)
    assert TotalBatch(*batch).explain(cfg.optim_wrapper.optimizer.lr, cfg.auto_scale_lr) == line


def test_without_the_rule(on_gpus):
    line = TotalBatch(2, 8, 1).explain(1e-3, None)
    assert line == 'lr 1e-3, not scaled to the total batch size of 16 (2 GPUs × 8 × 1)'


def test_mmengine_scales_by_all_of_it(images, tmp_path):
    """Scales by batch size and accumulation, 6 of 12 images; the config is unchanged."""
    changes = {
        'auto_scale_lr': dict(enable=True, base_batch_size=12),
        'optim_wrapper.accumulative_counts': 3,
    }
    changes |= {
        'train_dataloader.batch_size': 2,
        'optim_wrapper.optimizer.lr': 1e-3,
        'param_scheduler.warmup': 0,
    }
    losses, _ = train(images, tmp_path, **changes)
    # 23 images are three whole updates of six, nine steps, an epoch.
    assert len(losses) == 2 * 9
    log = next(tmp_path.glob('*/*.log')).read_text()
    assert 'lr 5e-4 = 0.02133 × 6 / 256 (1 process × 2 × 3)' in log
    assert 'auto_scale_lr = dict(base_batch_size=12, enable=True)' in log


def config(recipe: str = PRETRAIN) -> Config:
    cfg = Config.fromfile(ROOT / recipe)
    cfg.launcher = 'pytorch'
    return cfg


@pytest.mark.parametrize(
    ('gpus', 'given', 'expected'),
    [
        (8, (64, None), (64, 8)),
        (8, (None, 8), (64, 8)),
        (1, (128, None), (128, 32)),
        (6, (100, 2), (100, 2)),
        (8, (None, None), (512, 1)),
    ],
)
def test_flags(monkeypatch, gpus, given, expected):
    """Keeps the recipe's 4096 images per update if one argument is given."""
    monkeypatch.setenv('WORLD_SIZE', str(gpus))
    cfg = config()
    set_total_batch(cfg, *given)
    assert (
        cfg.train_dataloader.batch_size,
        cfg.optim_wrapper.get('accumulative_counts', 1),
    ) == expected


@pytest.mark.parametrize(
    ('gpus', 'given', 'message'),
    [
        (
            8,
            (100, None),
            "batch_size=100 on 8 GPUs does not divide the recipe's 4096 images per update; 64 or 128 "
            'can',
        ),
        (6, (64, None), 'no value can, or give both'),
        (8, (None, 0), 'accumulate=0 on 8 GPUs'),
        (8, (0, 1), 'batch_size=0 and accumulate=1 must be at least 1'),
    ],
)
def test_wrong_flags(monkeypatch, gpus, given, message):
    monkeypatch.setenv('WORLD_SIZE', str(gpus))
    with pytest.raises(ValueError, match=message):
        set_total_batch(config(), *given)


def test_flags_need_a_recipe(monkeypatch):
    cfg = config()
    cfg.pop('auto_scale_lr')
    with pytest.raises(ValueError, match='give both batch_size and accumulate'):
        set_total_batch(cfg, 8, None)


CHECKPOINT = dict(
    meta=dict(iter=312, batch=[8, 512, 1, 1]),
    param_schedulers=[
        dict(by_epoch=False, _global_step=312, last_step=312),
        dict(by_epoch=True, _global_step=1),
    ],
)


def test_another_number_of_gpus():
    """Converts steps for half the GPUs and two steps per update."""
    checkpoint = copy.deepcopy(CHECKPOINT)
    convert_steps(checkpoint, TotalBatch(4, 512, 2))
    assert checkpoint['meta']['iter'] == 624
    assert checkpoint['param_schedulers'][0] == dict(
        by_epoch=False, _global_step=624, last_step=624
    )
    assert checkpoint['param_schedulers'][1]['_global_step'] == 1
    convert_steps(dict(meta=dict(iter=1)), TotalBatch(8, 512, 1))


@pytest.mark.parametrize(
    ('gpus', 'batch', 'wanted'),
    [
        (4, [8, 512, 1, 1], (512, 2)),
        (16, [8, 512, 1, 1], (256, 1)),
        (8, [8, 512, 1, 1], (512, 1)),
        (24, [8, 768, 1, 1], (256, 1)),
        (5, [10, 300, 2, 1], (400, 3)),
        # Refused when the checkpoint is loaded.
        (6, [8, 512, 1, 1], (512, 1)),
        # Not of this plugin's loops.
        (4, None, (512, 1)),
    ],
)
def test_resuming_keeps_the_batch(monkeypatch, tmp_path, gpus, batch, wanted):
    monkeypatch.setenv('WORLD_SIZE', str(gpus))
    torch.save(dict(meta=dict(iter=1, **({'batch': batch} if batch else {}))), tmp_path / 'a.pth')
    cfg = config()
    cfg.work_dir = str(tmp_path)
    keep_total_batch(cfg)
    assert cfg.train_dataloader.batch_size == 512, 'there is nothing to resume'
    (tmp_path / 'last_checkpoint').write_text(str(tmp_path / 'a.pth'))
    keep_total_batch(cfg)
    assert (
        cfg.train_dataloader.batch_size,
        cfg.optim_wrapper.get('accumulative_counts', 1),
    ) == wanted


def test_a_moved_work_dir_keeps_the_batch(monkeypatch, tmp_path):
    """The path in last_checkpoint was invalid, so another number of GPUs was refused."""
    monkeypatch.setenv('WORLD_SIZE', '4')
    torch.save(dict(meta=dict(iter=1, batch=[8, 512, 1, 1])), tmp_path / 'model_1.pt')
    (tmp_path / 'epoch_2.pth').write_bytes(b'damaged')
    (tmp_path / 'last_checkpoint').write_text('/where/it/was/before/epoch_2.pth')
    cfg = config()
    cfg.work_dir = str(tmp_path)
    cfg.default_hooks.checkpoint.filename_tmpl = 'model_{}.pt'
    keep_total_batch(cfg)
    assert (cfg.train_dataloader.batch_size, cfg.optim_wrapper.accumulative_counts) == (512, 2)


@pytest.mark.parametrize(
    ('batch', 'remedy'),
    [
        ((4, 512, 1), 'set batch_size=512 and accumulate=2'),
        ((6, 512, 1), 'choose batch_size and accumulate so that the product is 4096'),
    ],
)
def test_another_batch_is_refused(batch, remedy):
    with pytest.raises(
        ValueError, match=f'trained with 4096 images per update .* another learning rate; {remedy}'
    ):
        convert_steps(copy.deepcopy(CHECKPOINT), TotalBatch(*batch))


def test_checkpoints_fall_on_whole_updates(images, tmp_path):
    with pytest.raises(
        ValueError,
        match='interval=4 saves between the 3 accumulated steps of an update; use a multiple of 3',
    ):
        train(images, tmp_path, interval=4, **{'optim_wrapper.accumulative_counts': 3})
