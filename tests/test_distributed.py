"""The launch scripts: two real processes on the CPU, and SLURM's command line."""

import os
import socket
import subprocess
import sys

import pytest
import torch

from .conftest import FINETUNE, PRETRAIN, ROOT, SMALL_PRETRAIN, SMALL_TEST, scalars, write_jpegs


def launch(script: str, *arguments: object, fails: bool = False, **environment: str) -> subprocess.CompletedProcess:
    with socket.socket() as free:
        free.bind(('127.0.0.1', 0))
        port = str(free.getsockname()[1])
    environment = {**os.environ, 'PYTHON': sys.executable, 'PORT': port, 'OMP_NUM_THREADS': '1', **environment}
    command = ['bash', ROOT / 'tools' / script, *arguments]
    done = subprocess.run([str(word) for word in command], cwd=ROOT, env=environment, capture_output=True, text=True)
    assert bool(done.returncode) == fails, done.stdout[-4000:] + done.stderr[-4000:]
    return done


def test_two_processes_train(tmp_path):
    """Half the steps, twice the rate, different masks; one checkpoint that both agree on."""
    write_jpegs(tmp_path / 'images' / 'train', 16)
    options = [*SMALL_PRETRAIN, 'train_cfg.max_epochs=2']
    arguments = ['--work-dir', tmp_path / 'run', '--data-root', tmp_path / 'images', '--cfg-options', *options]
    launch('dist_train.sh', PRETRAIN, 2, *arguments)
    records = scalars(tmp_path / 'run')
    assert [record['step'] for record in records] == [1, 2, 3, 4]
    for t, record in enumerate(records):
        assert record['lr'] == pytest.approx(1.5e-4 * 8 / 256 * t / 80, rel=1e-6)
    assert torch.load(tmp_path / 'run' / 'epoch_2.pth', weights_only=True)['meta']['iter'] == 4


def test_two_processes_evaluate(imagenet, tmp_path):
    arguments = ['--work-dir', tmp_path, '--data-root', imagenet, '--cfg-options', *SMALL_TEST]
    done = launch('dist_test.sh', FINETUNE, 'None', 2, *arguments)
    assert 'accuracy/top1' in done.stdout + done.stderr


def test_slurm_command_lines(tmp_path):
    (tmp_path / 'srun').write_text('#!/usr/bin/env bash\nprintf "%s\\n" "$@"\n')
    (tmp_path / 'srun').chmod(0o755)
    settings = dict(
        PATH=f'{tmp_path}:{os.environ["PATH"]}', GPUS='16', GPUS_PER_NODE='4', SRUN_ARGS='--time 1:00 --qos q'
    )
    words = launch('slurm_train.sh', 'gpu', 'mae', 'c.py', 'work', '--resume', **settings).stdout.split('\n')[:-1]
    assert words[:8] == ['--partition', 'gpu', '--job-name', 'mae', '--ntasks', '16', '--ntasks-per-node', '4']
    assert words[13:17] == ['--time', '1:00', '--qos', 'q']
    assert words[19:] == [str(ROOT / 'tools/train.py'), 'c.py', '--work-dir', 'work', '--launcher', 'slurm', '--resume']
    words = launch('slurm_test.sh', 'gpu', 'mae', 'c.py', 'c.pth', **settings).stdout.split('\n')[:-1]
    assert words[19:] == [str(ROOT / 'tools/test.py'), 'c.py', 'c.pth', '--launcher', 'slurm']


@pytest.mark.parametrize('script', ['dist_train.sh', 'dist_test.sh', 'slurm_train.sh', 'slurm_test.sh'])
def test_usage(script):
    assert f'tools/{script}' in launch(script, 'c.py', fails=True).stderr
