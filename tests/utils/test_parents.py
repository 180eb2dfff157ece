"""Processes whose parent is killed."""

import signal
import subprocess
import sys

import pytest
from mae_plugin.utils import parents

# Without the package, whose imports take seconds: a parent that starts a rank and waits.
PARENT = """
import subprocess, sys
subprocess.run([sys.executable, '-c', sys.argv[1], *sys.argv[2:]])
"""
RANK = """
import importlib.util, signal, sys, time
spec = importlib.util.spec_from_file_location('parents', sys.argv[1])
parents = importlib.util.module_from_spec(spec)
spec.loader.exec_module(parents)
parents._GRACE = 0.2
if sys.argv[2] == 'saves':
    signal.signal(signal.SIGTERM, lambda *_: (print('saved', flush=True), sys.exit()))
elif sys.argv[2] == 'hangs':
    signal.signal(signal.SIGTERM, lambda *_: print('hangs', flush=True))
parents.end_with_launcher()
print('up', flush=True)
while True:
    time.sleep(0.1)
"""


@pytest.mark.parametrize(('kind', 'last'), [('saves', 'saved'), ('hangs', 'hangs'), ('plain', '')])
@pytest.mark.timeout(60)
def test_a_rank_ends_with_its_launcher(kind, last):
    """After SIGKILL of the launcher, ranks trained on forever; now they save and end."""
    command = [sys.executable, '-c', PARENT, RANK, parents.__file__, kind]
    launcher = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, start_new_session=True)
    assert launcher.stdout.readline() == 'up\n'
    launcher.send_signal(signal.SIGKILL)
    launcher.wait()
    # The pipe closes with the last process that holds it.
    assert launcher.stdout.read().strip() == last
