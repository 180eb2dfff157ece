"""The launch scripts: two real processes on the CPU, and SLURM's command line."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from .conftest import (
    FINETUNE,
    PRETRAIN,
    ROOT,
    SMALL_FINETUNE,
    SMALL_PRETRAIN,
    SMALL_TEST,
    run,
    write_jpegs,
)


def start(script: str, *arguments: object, **environment: str) -> subprocess.Popen:
    """Starts a launch script in a session of its own."""
    with socket.socket() as free:
        free.bind(('127.0.0.1', 0))
        port = str(free.getsockname()[1])
    environment = {
        **os.environ,
        'PYTHON': sys.executable,
        'PORT': port,
        'OMP_NUM_THREADS': '1',
        **environment,
    }
    command = [str(word) for word in ('bash', ROOT / 'tools' / script, *arguments)]
    pipes = dict(stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    return subprocess.Popen(command, cwd=ROOT, env=environment, start_new_session=True, **pipes)


def launch(script: str, *arguments: object, code: int = 0, **environment: str) -> str:
    """What a launch script says until it ends."""
    process = start(script, *arguments, **environment)
    messages, _ = process.communicate()
    assert process.returncode == code, messages[-4000:]
    return messages


def workers_of(pid: int) -> list[int]:
    return [int(child) for child in Path(f'/proc/{pid}/task/{pid}/children').read_text().split()]


def wait_for(process: subprocess.Popen, pattern: str) -> str:
    """Reads what a process says up to a line with a pattern in it."""
    messages = ''
    for line in process.stdout:
        messages += line
        if re.search(pattern, line):
            return messages
    raise AssertionError(messages[-4000:])


@pytest.mark.slow
def test_bad_days(tmp_path):
    """Two compiled processes stop on a signal and resume; one is killed; one process alone
    completes the run.
    """
    write_jpegs(tmp_path / 'images' / 'train', 19)
    work_dir = tmp_path / 'run'
    compiled = ['default_hooks.compile.enabled=True', 'default_hooks.compile.backend=aot_eager']
    options = ['--cfg-options', *SMALL_PRETRAIN, *compiled, 'default_hooks.checkpoint.interval=100']
    folders = ['--work-dir', work_dir, '--data-root', tmp_path / 'images']

    # 16 of 19 images an epoch, two updates of eight; SIGTERM to the launcher alone, again and again
    # until all have ended, which made the exit code 1.
    job = start('dist_train.sh', PRETRAIN, 2, *folders, *options, 'train_cfg.max_epochs=1000')
    messages = wait_for(job, r'Epoch\(train\) +\[ *2\]\[1/2\]')
    assert 'lr 4.687e-6 = 1.5e-4 × 8 / 256 (2 processes × 4 × 1)' in messages
    assert (
        'The step is compiled by torch.compile' in messages
        and 'torch.compile failed' not in messages
    )
    while job.poll() is None:
        os.kill(job.pid, signal.SIGTERM)
        time.sleep(0.02)
    rest, _ = job.communicate()
    assert job.returncode == 75, rest[-4000:]
    (checkpoint,) = work_dir.glob('*.pth')
    stopped = torch.load(checkpoint, weights_only=True)['meta']
    total_batch = dict(gpus=2, batch_size=4, accumulate=1, repeats=1)
    assert checkpoint.name == f'iter_{stopped["iter"]}.pth'
    assert stopped['mae_plugin']['total_batch'] == total_batch

    # A process that dies takes the others along, and the launcher says why.
    job = start(
        'dist_train.sh', PRETRAIN, 2, *folders, '--resume', *options, 'train_cfg.max_epochs=1000'
    )
    wait_for(job, r'Epoch\(train\)')
    victim = workers_of(job.pid)[1]
    os.kill(victim, signal.SIGKILL)
    messages, _ = job.communicate()
    assert job.returncode == 1
    assert f'Signal 9 (SIGKILL) received by PID {victim}' in messages

    # Another number of processes goes on with updates of the same size.
    last = stopped['iter'] // 2 + 1
    left = ['--resume', *options, f'train_cfg.max_epochs={last}']
    launch('dist_train.sh', PRETRAIN, 1, *folders, *left)
    meta = torch.load(work_dir / f'epoch_{last}.pth', weights_only=True)['meta']
    assert (meta['epoch'], meta['iter']) == (last, 4 * last)
    total_batch = dict(gpus=1, batch_size=4, accumulate=2, repeats=1)
    assert meta['mae_plugin']['total_batch'] == total_batch
    assert not checkpoint.exists()
    # Each record's rate is that of its update, whoever made it.
    for file in sorted(work_dir.glob('*/vis_data/scalars.json')):
        steps = 1 if file.parents[1] != max(work_dir.glob('2*')) else 2
        for record in map(json.loads, file.read_text().splitlines()):
            update = (record['step'] - 1) // steps
            assert record['lr'] == pytest.approx(1.5e-4 * 8 / 256 * update / 80, rel=1e-6)


@pytest.mark.slow
def test_ranks_end_with_their_launcher(tmp_path):
    """After SIGKILL of the launcher, both ranks trained on for ever, and the next start met them in
    the work dir.
    """
    write_jpegs(tmp_path / 'images' / 'train', 19)
    folders = ['--work-dir', tmp_path / 'run', '--data-root', tmp_path / 'images']
    options = [
        '--cfg-options',
        *SMALL_PRETRAIN,
        'train_cfg.max_epochs=100000',
        'train_dataloader.num_workers=1',
    ]
    options.append('default_hooks.checkpoint.interval=100000')
    job = start('dist_train.sh', PRETRAIN, 2, *folders, *options)
    wait_for(job, r'Epoch\(train\)')
    job.kill()
    # The pipe ends when the last rank and the last worker do.
    rest, _ = job.communicate()
    (checkpoint,) = (tmp_path / 'run').glob('*.pth')
    assert torch.load(checkpoint, weights_only=True)['meta']['iter'] > 0, rest[-4000:]


def test_two_processes_evaluate(imagenet, tmp_path):
    arguments = ['--work-dir', tmp_path, '--data-root', imagenet, '--cfg-options', *SMALL_TEST]
    assert 'accuracy/top1' in launch('dist_test.sh', FINETUNE, 'None', 2, *arguments)


@pytest.mark.slow
def test_sharded_fine_tuning(imagenet, tmp_path):
    """Trains and evaluates in shares; the checkpoint is a plain one, with which one process gets
    the same accuracy.
    """
    options = [
        *SMALL_FINETUNE,
        *SMALL_TEST,
        'model.backbone.init_cfg=None',
        'train_cfg.max_epochs=1',
    ]
    options += ['train_dataloader.batch_size=4', 'model_wrapper_cfg.type=FullyShardedModel']
    arguments = ['--work-dir', tmp_path / 'run', '--data-root', imagenet, '--cfg-options', *options]
    launch('dist_train.sh', FINETUNE, 2, *arguments)
    lines = next((tmp_path / 'run').glob('*/vis_data/scalars.json')).read_text().splitlines()
    out = tmp_path / 'metrics.json'
    arguments = [
        '--work-dir',
        tmp_path / 'test',
        '--data-root',
        imagenet,
        '--out',
        out,
        '--out-item',
        'metrics',
    ]
    run(
        'tools/test.py',
        FINETUNE,
        tmp_path / 'run' / 'epoch_1.pth',
        *arguments,
        '--cfg-options',
        *SMALL_TEST,
    )
    metrics = json.loads(out.read_text())
    assert metrics and metrics == {key: json.loads(lines[-1])[key] for key in metrics}


def stand_in(folder: Path, name: str, script: str) -> None:
    (folder / name).write_text(f'#!/usr/bin/env bash\n{script}\n')
    (folder / name).chmod(0o755)


def test_slurm_command_lines(tmp_path):
    stand_in(tmp_path, 'srun', 'printf "%s\\n" "$@"')
    settings = dict(
        PATH=f'{tmp_path}:{os.environ["PATH"]}',
        GPUS='16',
        GPUS_PER_NODE='4',
        SRUN_ARGS='--time 1:00 --qos q',
    )
    words = launch('slurm_train.sh', 'gpu', 'mae', 'c.py', 'work', '--resume', **settings).split(
        '\n'
    )[:-1]
    assert words[:8] == [
        '--partition',
        'gpu',
        '--job-name',
        'mae',
        '--ntasks',
        '16',
        '--ntasks-per-node',
        '4',
    ]
    assert words[13] == '--signal=USR1@120'
    assert words[14:18] == ['--time', '1:00', '--qos', 'q']
    assert words[20:] == [
        str(ROOT / 'tools/train.py'),
        'c.py',
        '--work-dir',
        'work',
        '--launcher',
        'slurm',
        '--resume',
    ]
    words = launch('slurm_test.sh', 'gpu', 'mae', 'c.py', 'c.pth', **settings).split('\n')[:-1]
    assert words[20:] == [str(ROOT / 'tools/test.py'), 'c.py', 'c.pth', '--launcher', 'slurm']


def test_slurm_goes_on(tmp_path):
    """A run that a signal stops ends with 75. Outside a job it is restarted; a job is requeued."""
    wait = '{ echo up; sleep 30 &> log & wait; }'
    script = f'echo "$@" >> calls; trap "exit 75" USR1; [ "$(wc -l < calls)" -ge 3 ] || {wait}'
    stand_in(tmp_path, 'srun', f'cd {tmp_path}\n{script}')
    stand_in(tmp_path, 'scontrol', f'echo "$@" > {tmp_path}/requeued')
    arguments = ['slurm_train.sh', 'gpu', 'mae', 'c.py', 'work']
    path = dict(PATH=f'{tmp_path}:{os.environ["PATH"]}', SLURM_JOB_ID='')
    job = start(*arguments, **path)
    for number in (signal.SIGTERM, signal.SIGUSR1):
        wait_for(job, 'up')
        os.kill(job.pid, number)
    job.communicate()
    assert job.returncode == 0
    calls = (tmp_path / 'calls').read_text().splitlines()
    assert [call.count('--resume') for call in calls] == [0, 1, 2]
    assert not (tmp_path / 'requeued').exists()

    (tmp_path / 'calls').unlink()
    job = start(*arguments, **path | dict(SLURM_JOB_ID='17', SLURM_RESTART_COUNT='1'))
    wait_for(job, 'up')
    os.kill(job.pid, signal.SIGTERM)
    job.communicate()
    assert job.returncode == 75
    assert (tmp_path / 'calls').read_text().count('--resume') == 1
    assert (tmp_path / 'requeued').read_text() == 'requeue 17\n'

    # Any other end is the end.
    stand_in(tmp_path, 'srun', 'exit 3')
    launch(*arguments, code=3, **path)


@pytest.mark.parametrize(
    'script', ['dist_train.sh', 'dist_test.sh', 'slurm_train.sh', 'slurm_test.sh']
)
def test_usage(script):
    assert f'tools/{script}' in launch(script, 'c.py', code=2)
