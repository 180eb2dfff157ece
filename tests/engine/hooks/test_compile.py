"""Tests that the compiled step has the same loss, gradients and names of weights."""

import copy
from types import SimpleNamespace

import pytest
import torch
from mae_plugin.engine import CompileHook
from mae_plugin.models import MAEPretrainHead

from ..loops.test_train import train


@pytest.fixture(autouse=True)
def nothing_compiled():
    """Resets torch, which stops compiling a function at its eighth graph."""
    torch.compiler.reset()


def loss_and_gradients(model, inputs, noise, mask=True):
    model.zero_grad()
    loss = model.loss(inputs, mask=mask, noise=None if mask is not True else noise)['loss']
    loss.backward()
    return loss, {name: p.grad for name, p in model.named_parameters() if p.requires_grad}


def shallow(build_tiny):
    return build_tiny(
        backbone=dict(arch=dict(embed_dims=32, num_layers=1, num_heads=2, feedforward_channels=64))
    )


@pytest.mark.parametrize('bfloat16', [False, True])
def test_same_loss_and_gradients(build_tiny, bfloat16):
    """Compares inductor from noise and from a mask; bfloat16 modes round differently."""
    eager = shallow(build_tiny)
    compiled = copy.deepcopy(eager)
    compiled.compile(fullgraph=True)
    inputs, noise = torch.randn(4, 3, 32, 32), torch.rand(4, 16)
    mask = (torch.arange(16) % 4 > 0).float().expand(4, -1)
    tolerance = 3e-2 if bfloat16 else 1e-5
    for given in (True, mask):
        with torch.autocast('cpu', torch.bfloat16, enabled=bfloat16):
            loss, expected = loss_and_gradients(eager, inputs, noise, given)
            other, gradients = loss_and_gradients(compiled, inputs, noise, given)
        assert abs(loss - other) < tolerance * loss
        for name, gradient in expected.items():
            assert (gradients[name] - gradient).norm() <= tolerance * gradient.norm() + 1e-8, name
    assert compiled._compiled is not None
    assert compiled.state_dict().keys() == eager.state_dict().keys()


def test_other_sizes_are_one_more_graph(build_tiny):
    """Needs one graph for the usual size, and few for all others."""
    from torch._dynamo.testing import CompileCounter

    arch = dict(embed_dims=32, num_layers=1, num_heads=2, feedforward_channels=64)
    eager, counter = (
        build_tiny(backbone=dict(arch=arch), neck=dict(decoder_depth=1)),
        CompileCounter(),
    )
    compiled = copy.deepcopy(eager)
    compiled.compile(fullgraph=True, backend=counter)
    for size in ((32, 32), (64, 32), (24, 40), (40, 40), (32, 32), (48, 40)):
        inputs, noise = torch.randn(2, 3, *size), torch.rand(2, size[0] * size[1] // 64)
        torch.testing.assert_close(
            compiled.loss(inputs, noise=noise)['loss'],
            eager.loss(inputs, noise=noise)['loss'],
            rtol=1e-5,
            atol=0,
        )
    assert compiled._compiled is not None and counter.frame_count <= 3


def test_masks_do_not_depend_on_the_mode(build_tiny):
    model = shallow(build_tiny)
    inputs = torch.randn(4, 3, 32, 32)
    torch.manual_seed(3)
    expected = model.loss(inputs)['loss']
    model.compile(backend='aot_eager')
    torch.manual_seed(3)
    torch.testing.assert_close(model.loss(inputs)['loss'], expected)


def test_a_copy_has_its_own_weights(build_tiny):
    model = shallow(build_tiny)
    model.compile(backend='eager')
    inputs, noise = torch.randn(2, 3, 32, 32), torch.rand(2, 16)
    loss = model.loss(inputs, noise=noise)['loss']
    twin = copy.deepcopy(model)
    for parameter in twin.parameters():
        parameter.data += 0.1
    assert abs(twin.loss(inputs, noise=noise)['loss'] - loss) > 1e-3


def test_without_a_compiler(build_tiny):
    def broken(graph, inputs):
        raise FileNotFoundError('there is no compiler')

    model = shallow(build_tiny)
    inputs, noise = torch.randn(2, 3, 32, 32), torch.rand(2, 16)
    expected = model.loss(inputs, noise=noise)['loss']
    model.compile(backend=broken)
    torch.testing.assert_close(model.loss(inputs, noise=noise)['loss'], expected)
    assert model._compiled is None


def test_in_a_run(images, tmp_path):
    """Off on a CPU unless enabled; when it is on, the run is the same but for rounding."""
    same = {'model.backbone.drop_path_rate': 0.0}
    plain, _ = train(images, tmp_path / 'plain', **same)
    options = {'default_hooks.compile.enabled': True, 'default_hooks.compile.backend': 'aot_eager'}
    compiled, _ = train(images, tmp_path / 'compiled', **options, **same)
    assert plain.keys() == compiled.keys() and len(plain) > 1
    for step, loss in plain.items():
        assert compiled[step] == pytest.approx(loss, rel=1e-4), step
    log = next((tmp_path / 'compiled').glob('*/*.log')).read_text()
    assert 'compiled by torch.compile' in log and 'torch.compile failed' not in log
    assert 'compiled by torch.compile' not in next((tmp_path / 'plain').glob('*/*.log')).read_text()
    assert CompileHook().enabled is None


class _OtherLoss(MAEPretrainHead):
    def loss(self, pred, target, mask):
        """Overrides what is compiled."""
        return super().loss(pred, target, mask)


def test_the_log_states_what_is_not_compiled(build_tiny, monkeypatch):
    """The log states whether the step is compiled: a subclass of a part can prevent it."""
    lines = []
    monkeypatch.setattr(
        'mae_plugin.engine.hooks.compile.print_log', lambda text, **_: lines.append(text)
    )
    runner = SimpleNamespace(model=build_tiny(head=dict(type=_OtherLoss)))
    CompileHook(enabled=True).before_train(runner)
    assert runner.model._compiled is None
    assert lines == [
        'The step is not compiled: _OtherLoss overrides loss and does not set '
        'has_loss_of_removed = True beside it.'
    ]
