"""Console output before the first step, and the log file with all other lines."""

import logging

from mae_plugin.cli.console import NoiseFilter

from ..conftest import ROOT, run, scalars, write_jpegs

CONFIG = 'mae_vit-mini-p8_1xb128-coslr-20e_64px'


def test_before_the_first_step(tmp_path):
    """Some 320 lines came first: environment, config, all hooks, and a line for each tensor."""
    for part in ('train', 'val'):
        write_jpegs(tmp_path / part / 'a', 8)
        write_jpegs(tmp_path / part / 'b', 8, seed=1)
    options = [
        'train_cfg.max_epochs=1',
        'train_dataloader.batch_size=8',
        'train_dataloader.num_workers=0',
    ]
    options += [
        'val_dataloader.num_workers=0',
        'default_hooks.logger.interval=1',
        'param_scheduler.warmup=0',
    ]
    # The name is that of a shipped config.
    arguments = [
        CONFIG,
        '--work-dir',
        tmp_path / 'run',
        '--data-root',
        tmp_path,
        '--cfg-options',
        *options,
    ]
    done = run('tools/train.py', *arguments)
    assert len(scalars(tmp_path / 'run')) == 2
    lines = done.stdout.splitlines()
    first_step = next(i for i, line in enumerate(lines) if 'Epoch(train)' in line)
    before = '\n'.join(lines[:first_step])
    assert first_step <= 15
    assert 'Training on 16 images' in before and str(tmp_path / 'train') in before
    assert 'Training in float32' in before
    assert 'lr 1.25e-4 = 4e-3 × 8 / 256' in before
    (log,) = (tmp_path / 'run').glob('*/*.log')
    assert str(log) in before
    assert done.stderr == ''
    for noise in (
        'paramwise_options',
        'FileClient',
        'HardDiskBackend',
        'System environment',
        'SafeCheckpointHook',
    ):
        assert noise not in done.stdout
    kept = log.read_text()
    for noise in (
        'paramwise_options',
        'System environment',
        'optim_wrapper = dict(',
        'LenientLoggerHook',
    ):
        assert noise in kept


def test_errors_always_pass():
    def record(level: int) -> logging.LogRecord:
        return logging.LogRecord('mmengine', level, '', 0, 'Exp name: x', (), None)

    assert not NoiseFilter().filter(record(logging.WARNING))
    assert NoiseFilter().filter(record(logging.ERROR))


def test_the_config_of_the_test_is_ours():
    assert len(list((ROOT / 'configs').rglob(f'{CONFIG}.py'))) == 1
