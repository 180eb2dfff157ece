"""Signals that come while a tool is still being imported, and those that a launcher passes on."""

import importlib.util
import os
import runpy
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from .conftest import PRETRAIN, ROOT


def is_handled(pid: int, number: int) -> bool:
    """Returns whether a process has a handler for a signal."""
    status = Path(f'/proc/{pid}/status').read_text()
    caught = int(status.split('SigCgt:')[1].split()[0], 16)
    return bool(caught >> (number - 1) & 1)


@pytest.mark.parametrize(
    ('tool', 'number', 'code', 'message'),
    [
        ('train.py', signal.SIGTERM, 75, 'train.py: stopped before the first step\n'),
        ('train.py', signal.SIGUSR1, 75, 'train.py: stopped before the first step\n'),
        ('train.py', signal.SIGINT, 130, 'train.py: interrupted\n'),
        ('reconstruct.py', signal.SIGINT, 130, 'reconstruct.py: interrupted\n'),
        ('torchrun.py', signal.SIGTERM, 75, ''),
        ('torchrun.py', signal.SIGINT, 130, ''),
    ],
)
def test_before_the_first_step(tool, number, code, message):
    """SIGTERM ended with -15, so that nothing started the run again; Ctrl-C printed a traceback of
    the imports.
    """
    pipes = dict(stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    environment = {
        name: value for name, value in os.environ.items() if not name.startswith('SLURM')
    }
    process = subprocess.Popen(
        [sys.executable, f'tools/{tool}', PRETRAIN], cwd=ROOT, env=environment, **pipes
    )
    # Python itself handles Ctrl-C from the start.
    while not is_handled(process.pid, number) or (
        number == signal.SIGINT and not has_imported(process.pid, tool)
    ):
        assert process.poll() is None, process.stderr.read()
        time.sleep(0.005)
    process.send_signal(number)
    _, error = process.communicate()
    assert (process.returncode, error) == (code, message)


def has_imported(pid: int, tool: str) -> bool:
    """Returns whether a process has gone on to import torch."""
    return 'libtorch' in Path(f'/proc/{pid}/maps').read_text()


@pytest.fixture
def early(monkeypatch):
    """The module of early signals, as a tool imports it; its handlers are removed again."""
    handled = (signal.SIGTERM, signal.SIGUSR1, signal.SIGINT)
    former, hook = [signal.getsignal(number) for number in handled], sys.excepthook

    def load(tool: str) -> None:
        monkeypatch.setattr(sys, 'argv', [f'tools/{tool}'])
        spec = importlib.util.spec_from_file_location(
            'early_signals', ROOT / 'tools' / 'early_signals.py'
        )
        spec.loader.exec_module(importlib.util.module_from_spec(spec))

    yield load
    sys.excepthook = hook
    for number, handler in zip(handled, former, strict=True):
        signal.signal(number, handler)


def test_a_tool_at_work_is_interrupted(early, monkeypatch, capsys):
    """It removes what is unfinished, by an exception, and ends in one line."""
    early('prepare_dataset.py')
    monkeypatch.setattr(sys.modules['__main__'], 'main', None, raising=False)
    with pytest.raises(KeyboardInterrupt):
        signal.raise_signal(signal.SIGINT)
    sys.excepthook(KeyboardInterrupt, KeyboardInterrupt(), None)
    assert capsys.readouterr().err == 'prepare_dataset.py: interrupted\n'
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL


@pytest.mark.parametrize(('number', 'code'), [(signal.SIGINT, 130), (signal.SIGTERM, 75)])
def test_nothing_replaces_the_interruption_of_set_up(early, monkeypatch, number, code):
    """Ctrl-C while mmengine wrote the config was reported as "Failed to format the config file"."""
    monkeypatch.setenv('SLURM_NTASKS', '1')
    process = os.fork()
    if process == 0:
        try:
            early('train.py')
            signal.raise_signal(number)
        finally:
            os._exit(3)
    assert os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]) == code


def test_other_tasks_of_slurm(early, monkeypatch):
    """SIGTERM ends the tasks beside one that has failed: an exit code of 75 would start the failing
    run for ever.
    """
    monkeypatch.setenv('SLURM_NTASKS', '2')
    early('train.py')
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL and callable(
        signal.getsignal(signal.SIGUSR1)
    )
    monkeypatch.setenv('SLURM_NTASKS', '1')
    early('train.py')
    assert callable(signal.getsignal(signal.SIGTERM))


def test_exit_codes_of_workers():
    """SIGTERM or SIGUSR1 before a worker handles them counts as a stop, if the launcher got it too."""
    launcher = runpy.run_path(str(ROOT / 'tools' / 'torchrun.py'))
    exit_code = launcher['exit_code']
    assert exit_code({75}) == 75 and exit_code({130}) == 130
    # torchrun ends the others by SIGTERM when one has failed.
    assert exit_code({1}) == exit_code({-9, 75}) == exit_code({1, 75}) == exit_code({-10}) == 0
    launcher['exit_code'].__globals__['_requested'] = 75
    assert exit_code({-10, -15}) == exit_code({75, -10}) == 75 and exit_code({-10, 1}) == 0
    assert exit_code({130, 75}) == 130
