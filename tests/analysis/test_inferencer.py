"""Shared parts of the inferencers: device, finite weights, and the progress bar."""

import os
import pty
import subprocess
import sys

import numpy as np
import pytest
import torch
from mae_plugin import ReconstructionInferencer
from mae_plugin.analysis.inferencer import check_device

from ..conftest import ROOT

SCRIPT = """
import numpy as np, torch
import mae_plugin
from mmpretrain.registry import MODELS
from tests.conftest import tiny_config
torch.manual_seed(0)
inferencer = mae_plugin.ReconstructionInferencer(MODELS.build(tiny_config()))
results = inferencer([np.zeros((32, 32, 3), np.uint8)] * 6, batch_size=2)
print('results:', len(results))
"""


def _on_a_terminal(*command: str) -> str:
    """Returns the output of a process whose standard output is a terminal."""
    parent_end, child_end = pty.openpty()
    environment = dict(os.environ, TERM='xterm', COLUMNS='100', PYTHONPATH=str(ROOT))
    process = subprocess.Popen(
        command, stdout=child_end, stderr=child_end, stdin=child_end, env=environment, cwd=ROOT
    )
    os.close(child_end)
    output = b''
    while True:
        try:
            part = os.read(parent_end, 4096)
        # On Linux, a closed other end is an OSError.
        except OSError:
            break
        if not part:
            break
        output += part
    assert process.wait() == 0, output.decode()
    os.close(parent_end)
    return output.decode()


def test_the_bar_comes_to_its_end_on_a_terminal():
    """With rich 15 and mmpretrain's own display, the bar stayed at "0% -:--:--"."""
    output = _on_a_terminal(sys.executable, '-c', SCRIPT)
    assert 'results: 6' in output
    assert 'Inference' in output
    assert '100%' in output


def test_no_bar_in_a_pipe(build_tiny, capfd):
    ReconstructionInferencer(build_tiny())([np.zeros((32, 32, 3), np.uint8)])
    assert capfd.readouterr().out == ''


def test_devices():
    check_device('cpu')
    check_device(torch.device('cpu'))
    for device, message in (
        ('gpu', 'is unknown'),
        ('cuda:99', 'is a GPU'),
        (5.5, 'is unknown'),
    ):
        with pytest.raises(ValueError, match=f'device {device} {message}'):
            check_device(device)


def test_a_device_that_is_not_there(build_tiny):
    with pytest.raises(ValueError, match='device cuda:99 is a GPU'):
        ReconstructionInferencer(build_tiny(), device='cuda:99')


def test_weights_that_are_not_finite(build_tiny):
    """Such weights were used without an error."""
    model = build_tiny()
    with torch.no_grad():
        model.neck.decoder_pred.bias[0] = torch.inf
    with pytest.raises(
        ValueError, match=r'the model holds weights that are NaN .*, in neck\.decoder_pred\.bias'
    ):
        ReconstructionInferencer(model)
