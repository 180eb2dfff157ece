"""Tests the choice of precision by device, with faked GPUs."""

import logging

import pytest
import torch
from mae_plugin.engine import AutoAmpOptimWrapper
from mmengine.logging import MMLogger


def build() -> AutoAmpOptimWrapper:
    return AutoAmpOptimWrapper(
        optimizer=torch.optim.SGD([torch.nn.Parameter(torch.ones(2))], lr=0.1)
    )


@pytest.fixture
def pretend(monkeypatch):
    def pretend(cuda: bool, bf16: bool) -> None:
        monkeypatch.setattr(torch.cuda, 'is_available', lambda: cuda)
        monkeypatch.setattr(
            'mmengine.optim.optimizer.amp_optimizer_wrapper.is_cuda_available', lambda: cuda
        )
        monkeypatch.setattr(torch.cuda, 'is_bf16_supported', lambda including_emulation=True: bf16)

    return pretend


def test_without_a_gpu_it_trains_in_float32(pretend, caplog):
    pretend(cuda=False, bf16=False)
    logger = MMLogger.get_instance('test_auto_amp', logger_name='mmengine')
    logger.addHandler(caplog.handler)
    with caplog.at_level(logging.INFO):
        wrapper = build()
    assert [r.message for r in caplog.records] == ['Training in float32, as there is no GPU.']
    weight = wrapper.optimizer.param_groups[0]['params'][0]
    with wrapper.optim_context(torch.nn.Linear(1, 1)):
        assert not torch.is_autocast_enabled('cpu')
        loss = (weight @ weight).sum()
    wrapper.update_params(loss)
    torch.testing.assert_close(weight.data, torch.full((2,), 0.8))


def test_precision_by_gpu(pretend):
    pretend(cuda=True, bf16=True)
    wrapper = build()
    assert wrapper.cast_dtype == torch.bfloat16
    assert not wrapper.loss_scaler.is_enabled()
    pretend(cuda=True, bf16=False)
    assert build().cast_dtype == torch.float16


@pytest.mark.parametrize(
    ('cuda', 'stored', 'expected'),
    [(False, None, 1.0), (False, 1024.0, 1.0), (True, None, 65536.0), (True, 1024.0, 1024.0)],
)
def test_resume_with_another_precision(pretend, cuda, stored, expected):
    """The optimizer is restored in every case, the loss scale only where a scaler is in use."""
    pretend(cuda=False, bf16=False)
    state = build().state_dict()
    state['param_groups'][0]['lr'] = 0.7
    scaler = {}
    if stored is not None:
        growth = dict(growth_factor=2.0, backoff_factor=0.5, growth_interval=2000)
        scaler = dict(scale=stored, _growth_tracker=0, **growth)
    pretend(cuda=cuda, bf16=False)
    wrapper = build()
    wrapper.load_state_dict({**state, 'loss_scaler': scaler})
    assert wrapper.get_lr()['lr'] == [0.7]
    assert wrapper.loss_scaler.get_scale() == expected
