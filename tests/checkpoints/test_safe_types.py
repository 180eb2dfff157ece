"""What may be unpickled from a checkpoint, and what may not."""

import os
import pickle

import numpy as np
import pytest
import torch
from mmengine.logging import HistoryBuffer
from mmengine.runner import CheckpointLoader


def test_what_a_runner_writes_loads(tmp_path):
    buffer = HistoryBuffer()
    for value in (3.0, 1.0, 2.0):
        buffer.update(value)
    written = dict(
        message_hub=dict(log_scalars=dict(loss=buffer), runtime_info=dict(iter=3, mean=np.float64(2), n=np.int64(7))),
        state_dict=dict(w=torch.ones(2)),
        array=np.arange(3, dtype=np.float32),
    )
    torch.save(written, tmp_path / 'c.pth')
    # mmengine's own loader first: on the onedl stack it changes torch's list behind our back.
    CheckpointLoader.load_checkpoint(str(tmp_path / 'c.pth'))
    read = torch.load(tmp_path / 'c.pth', weights_only=True)
    again = read['message_hub']['log_scalars']['loss']
    assert [again.min(), again.max(), again.current(), again.mean()] == [1, 3, 2, 2]
    assert again.statistics('max', 2) == 2
    assert read['message_hub']['runtime_info'] == dict(iter=3, mean=2.0, n=7)
    assert read['array'].tolist() == [0, 1, 2]


class Call:
    """Pickles as a call of any function."""

    def __init__(self, function, *args) -> None:
        self.call = (function, args)

    def __reduce__(self):
        return self.call


@pytest.mark.parametrize(
    'payload',
    [
        lambda path: Call(os.system, f'touch {path}'),
        lambda path: Call(getattr, HistoryBuffer, '__init__'),
        lambda path: Call(getattr, HistoryBuffer.mean, '__globals__'),
        lambda path: Call(getattr, np.ndarray, 'tofile'),
        lambda path: Call(eval, f'open({str(path)!r}, "w")'),
    ],
)
def test_anything_else_is_refused_and_does_not_run(tmp_path, payload):
    touched = tmp_path / 'touched'
    torch.save(dict(state_dict={}, extra=payload(touched)), tmp_path / 'c.pth')
    with pytest.raises(pickle.UnpicklingError):
        torch.load(tmp_path / 'c.pth', weights_only=True)
    assert not touched.exists()
