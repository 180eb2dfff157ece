"""Tests that LeanRuntimeInfoHook logs what mmengine's hook does, without waiting."""

import json

import numpy as np
import pytest
import torch
from mae_plugin.weights.loading import load_from_local
from mmengine.logging import HistoryBuffer
from torch.utils._python_dispatch import TorchDispatchMode

from ..loops.test_train import STEPS, train

INTERVAL = 3


def records(work_dir):
    lines = next(work_dir.glob('*/vis_data/scalars.json')).read_text().splitlines()
    return [
        {k: v for k, v in json.loads(line).items() if k not in ('time', 'data_time')}
        for line in lines
    ]


def test_the_log_is_the_same(images, tmp_path):
    """Compares all log records and losses in checkpoints with those of mmengine's hook."""
    for name, kind in (('ours', 'LeanRuntimeInfoHook'), ('stock', 'RuntimeInfoHook')):
        changes = {
            'default_hooks.runtime_info.type': kind,
            'default_hooks.logger.interval': INTERVAL,
        }
        train(images, tmp_path / name, interval=4, **changes)
    assert records(tmp_path / 'ours') == records(tmp_path / 'stock') != []
    for step in (8, STEPS):
        ours, stock = (
            torch.load(tmp_path / name / f'iter_{step}.pth', weights_only=True)['message_hub'][
                'log_scalars'
            ]
            for name in ('ours', 'stock')
        )
        assert ours.keys() == stock.keys()
        assert len(ours['train/loss']['log_history']) == step
        np.testing.assert_array_equal(
            ours['train/loss']['log_history'], stock['train/loss']['log_history']
        )


class Reads(TorchDispatchMode):
    """Counts reads of numbers from tensors, and of shapes that depend on values."""

    number = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        aten = torch.ops.aten
        self.number += func.overloadpacket in (
            aten._local_scalar_dense,
            aten.nonzero,
            aten.masked_select,
            aten.equal,
        )
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize(
    ('kind', 'expected'), [('LeanRuntimeInfoHook', 0), ('RuntimeInfoHook', STEPS)]
)
def test_nothing_is_read_between_two_logs(images, tmp_path, monkeypatch, kind, expected):
    """Counts operations for which the host would wait for a GPU."""
    reads = Reads()
    # The clock starts with the first step, and nothing is logged before the end of the first epoch.
    from mae_plugin.engine.loops.train import ResumableEpochLoop

    run_iter = ResumableEpochLoop.run_iter

    def watched(self, *args):
        with reads:
            run_iter(self, *args)

    monkeypatch.setattr(ResumableEpochLoop, 'run_iter', watched)
    changes = {'default_hooks.runtime_info.type': kind, 'default_hooks.logger.interval': 1000}
    # Nor is a checkpoint written, for which weights are looked through.
    changes |= {'default_hooks.checkpoint.save_last': False}
    # Losses.after_train_iter of the shared run reads each loss itself, once a step.
    train(images, tmp_path, interval=1000, **changes)
    assert reads.number - STEPS == expected


def test_history_is_bounded(images, tmp_path):
    train(
        images,
        tmp_path,
        **{'default_hooks.runtime_info.history': 4, 'default_hooks.logger.interval': 1},
    )
    state = load_from_local(str(tmp_path / f'iter_{STEPS}.pth'))['message_hub']
    lengths = {name: len(buffer.data[0]) for name, buffer in state['log_scalars'].items()}
    assert lengths['train/loss'] == lengths['train/lr'] == 4
    assert isinstance(state['log_scalars']['train/loss'], HistoryBuffer)
