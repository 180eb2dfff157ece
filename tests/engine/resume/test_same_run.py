"""Tests the comparison of the run of a checkpoint with the run that resumes."""

import copy

import pytest
import torch
from mae_plugin.data import IndexedImages
from mae_plugin.engine import WarmupCosineLR
from mae_plugin.engine.loops.sampler import SeededDataset
from mae_plugin.engine.resume.same_run import (
    compare_data,
    compare_optimizer,
    compare_schedules,
    describe_data,
)
from mae_plugin.engine.state import TrainingData
from mmengine.optim import OptimWrapper
from torch.utils.data import TensorDataset

from ...conftest import write_jpegs


def wrapper(
    kind: type = torch.optim.AdamW, sizes: tuple = ((3,), (2,)), groups: int = 1
) -> OptimWrapper:
    parameters = [torch.nn.Parameter(torch.zeros(size)) for size in sizes]
    for parameter in parameters:
        parameter.grad = torch.ones_like(parameter)
    parts = [dict(params=parameters[i::groups]) for i in range(groups)]
    optimizer = kind(parts, lr=0.1)
    optimizer.step()
    return OptimWrapper(optimizer)


def written_by(own: OptimWrapper, named: bool = True) -> dict:
    meta = dict(optimizer=type(own.optimizer).__name__) if named else {}
    return dict(meta=meta, optimizer=copy.deepcopy(own.state_dict()))


@pytest.mark.parametrize(
    ('before', 'now', 'difference'),
    [
        (
            dict(kind=torch.optim.SGD),
            {},
            'its optimizer is SGD, and optim_wrapper.optimizer.type is AdamW',
        ),
        (dict(groups=2), {}, 'its optimizer has 2 groups of parameters, and this config 1'),
        (
            dict(sizes=((3,), (2,), (2,))),
            {},
            'group 0 of its optimizer has 3 parameters, and of this config 2',
        ),
        (
            dict(sizes=((3,), (4,))),
            {},
            r"'exp_avg' of its parameter 1 has the shape \(4,\), and the .* here \(2,\)",
        ),
    ],
)
def test_another_optimizer(before, now, difference):
    """torch: "loaded state dict has a different number of parameter groups"."""
    checkpoint = written_by(wrapper(**before))
    with pytest.raises(
        ValueError,
        match=f'^a.pth was written by a run with another config: {difference}.*load_from=a',
    ):
        compare_optimizer(checkpoint, wrapper(**now), 'a.pth')


def test_older_checkpoints_do_not_name_their_optimizer():
    compare_optimizer(written_by(wrapper(), named=False), wrapper(), 'a.pth')
    with pytest.raises(ValueError, match='its optimizer is one with .*momentum.*, and .* is AdamW'):
        compare_optimizer(written_by(wrapper(torch.optim.SGD), named=False), wrapper(), 'a.pth')


def test_the_same_optimizer(caplog):
    compare_optimizer(written_by(wrapper(groups=2)), wrapper(groups=2), 'a.pth')


def scheduler(by_epoch: bool) -> WarmupCosineLR:
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    return WarmupCosineLR(optimizer, warmup=0, end=10, by_epoch=by_epoch)


def test_schedules_in_another_unit():
    checkpoint = dict(param_schedulers=[scheduler(True).state_dict()])
    compare_schedules(checkpoint, [scheduler(True)], 'a.pth')
    with pytest.raises(
        ValueError, match='its schedule counts epochs, and WarmupCosineLR .* counts iterations'
    ):
        compare_schedules(checkpoint, [scheduler(False)], 'a.pth')
    compare_schedules(checkpoint, None, 'a.pth')


@pytest.fixture
def warnings(monkeypatch):
    from mae_plugin.engine.resume import same_run

    messages = []
    monkeypatch.setattr(same_run, 'print_log', lambda sentence, **_: messages.append(sentence))
    return messages


def test_less_is_said_too(warnings):
    compare_optimizer(dict(meta={}), wrapper(), 'a.pth')
    compare_schedules(dict(param_schedulers=[{}, {}]), [scheduler(True)], 'a.pth')
    assert 'holds no state of the optimizer' in warnings[0]
    assert 'a.pth has 2 schedules, and param_scheduler of this config 1' in warnings[1]


def test_the_data_have_changed(tmp_path, warnings):
    """Detects another number of images, and other names, but not another folder."""
    write_jpegs(tmp_path / 'one', 3)
    write_jpegs(tmp_path / 'moved', 3)
    write_jpegs(tmp_path / 'more', 4)
    (tmp_path / 'renamed').mkdir()
    for path in (tmp_path / 'one').iterdir():
        (tmp_path / 'renamed' / f'x{path.name}').write_bytes(path.read_bytes())
    notes = {
        name: describe_data(
            SeededDataset(IndexedImages(data_root=str(tmp_path / name), pipeline=[]))
        )
        for name in ('one', 'moved', 'more', 'renamed')
    }
    for name in ('one', 'moved'):
        compare_data(notes['one'], notes[name])
    compare_data(None, notes['more'])
    assert not warnings
    compare_data(notes['one'], notes['more'])
    compare_data(notes['one'], notes['renamed'])
    assert 'have changed since this checkpoint was written: 3 samples then and 4 now' in warnings[0]
    assert '3 samples then and now, but of other names' in warnings[1]
    assert describe_data(TensorDataset(torch.zeros(5))) == TrainingData(5, None)
