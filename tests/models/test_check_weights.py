"""Weights of another architecture, or with tensors that torch cannot copy, are refused."""

import copy

import numpy as np
import pytest
import torch
from mae_plugin.models import adapt
from mae_plugin.models import check_weights as module
from mae_plugin.models.check_weights import (
    check_tensors,
    check_weights,
    is_checked,
    mark_checked,
)
from mmengine.runner.checkpoint import load_state_dict
from mmpretrain.registry import MODELS


def test_a_part_is_enough(build_tiny):
    model = build_tiny()
    weights = model.state_dict()
    check_weights(weights, model)
    check_weights(
        {key: value for key, value in weights.items() if key.startswith('backbone.')}, model
    )
    check_weights({**weights, 'head.fc.weight': torch.zeros(3)}, model)
    check_weights(
        {key: value for key, value in weights.items() if 'backbone.ln1' not in key}, model
    )


@pytest.mark.parametrize(
    ('change', 'message'),
    [
        (dict(arch=dict(num_layers=3)), r'it lacks backbone\.layers \(12\); choose'),
        (dict(arch=dict(num_layers=1)), r'the model has no backbone\.layers \(12\); choose'),
        (
            dict(arch=dict(embed_dims=64)),
            r'\d\d tensors have another shape, the first backbone\.cls_token \(1, 1, 32\)',
        ),
        (
            dict(patch_size=4),
            r'backbone\.patch_embed\.projection\.weight \(32, 3, 8, 8\) instead of \(32, 3, 4, 4\)',
        ),
    ],
)
def test_other_architectures(build_tiny, change, message):
    arch = dict(embed_dims=32, num_layers=2, num_heads=2, feedforward_channels=64) | change.get(
        'arch', {}
    )
    model = build_tiny(backbone=dict(change, arch=arch))
    weights = build_tiny().state_dict()
    with pytest.raises(ValueError, match=f'c.pth does not fit MAE: .*{message}'):
        check_weights(weights, model, 'c.pth')
    # Strict loading by torch refuses them too; strict=False loads a part on purpose.
    with pytest.raises(ValueError, match='does not fit MAE'):
        model.load_state_dict(weights)


def test_nothing_in_common(build_tiny):
    with pytest.raises(
        ValueError,
        match=r'it holds layer1 \(1\), fc \(1\), but the model backbone\.layers \(24\), neck',
    ):
        check_weights({'layer1.0.weight': torch.zeros(1), 'fc.bias': torch.zeros(1)}, build_tiny())


SPARSE = torch.zeros(1, 1, 32).to_sparse()
QUANTIZED = torch.quantize_per_tensor(torch.zeros(1, 1, 32), 0.1, 0, torch.qint8)


@pytest.mark.parametrize(
    ('weight', 'message'),
    [
        (np.zeros((1, 1, 32), np.float32), 'a numpy.ndarray, which is not a tensor'),
        ([0.0] * 32, 'a builtins.list, which is not a tensor'),
        (torch.zeros(1, 1, 32, device='meta'), 'on the meta device, without content'),
        (SPARSE, 'sparse'),
        (QUANTIZED, 'quantized'),
        (
            torch.zeros(1, 1, 32, dtype=torch.int8),
            'of torch.int8, where the model has torch.float32',
        ),
        (
            torch.zeros(1, 1, 32, dtype=torch.bool),
            'of torch.bool, where the model has torch.float32',
        ),
        (
            torch.zeros(1, 1, 32, dtype=torch.complex64),
            'of torch.complex64, where the model has torch.float32',
        ),
    ],
)
def test_invalid_values_are_refused(build_tiny, tmp_path, weight, message):
    """Formerly such weights left the model random, or were converted without an error."""
    model = build_tiny()
    weights = {**model.state_dict(), 'backbone.cls_token': weight}
    with pytest.raises(
        ValueError,
        match=f'c.pth does not fit MAE: backbone.cls_token is {message}; save dense tensors',
    ):
        check_weights(weights, model, 'c.pth')
    with pytest.raises(ValueError, match=f'does not fit MAE: backbone.cls_token is {message}'):
        load_state_dict(model, weights)
    # A value that the model has no tensor for is not one of its weights.
    check_weights({**model.state_dict(), 'other': weight}, model)


def test_a_classifier_of_mmpretrain():
    """mmengine only logs such weights and continues with random ones."""
    arch = dict(embed_dims=32, num_layers=1, num_heads=2, feedforward_channels=64)
    backbone = dict(type='VisionTransformer', arch=arch, img_size=32, patch_size=8)
    model = MODELS.build(dict(type='ImageClassifier', backbone=backbone))
    weights = {**model.state_dict(), 'backbone.cls_token': np.zeros((1, 1, 32), np.float32)}
    with pytest.raises(
        ValueError, match='does not fit ImageClassifier: backbone.cls_token is a numpy.ndarray'
    ):
        load_state_dict(model, weights)


@pytest.mark.parametrize(
    'dtype', [torch.float64, torch.float16, torch.bfloat16, torch.float8_e4m3fn]
)
def test_weights_of_another_precision(build_tiny, dtype):
    source, target = build_tiny(), build_tiny()
    source.backbone.cls_token.data.fill_(0.5)
    weights = {
        key: value.to(dtype) if value.is_floating_point() else value
        for key, value in source.state_dict().items()
    }
    load_state_dict(target, weights)
    assert (target.backbone.cls_token == 0.5).all()


def test_a_counter_stays_an_integer():
    """BatchNorm counts its batches in int64, and int32 is another precision of integers."""
    norm = torch.nn.BatchNorm1d(1)
    check_tensors({'num_batches_tracked': torch.tensor(3, dtype=torch.int32)}, norm)
    with pytest.raises(
        ValueError, match='num_batches_tracked is of torch.float32, where the model has torch.int64'
    ):
        check_tensors({'num_batches_tracked': torch.tensor(3.0)}, norm)


def test_loading_a_part_on_purpose(build_tiny):
    model, weights = build_tiny(), build_tiny().state_dict()
    some = {key: torch.ones_like(value) for key, value in weights.items() if 'layers.0.' in key}
    model.load_state_dict(some, strict=False)
    assert all((model.state_dict()[key] == 1).all() for key in some)


@pytest.fixture
def comparisons(monkeypatch):
    """Records the calls that compare weights with a model."""
    calls = []

    def compare(*args, **kwargs):
        calls.append(args)
        return adapt.compare(*args, **kwargs)

    monkeypatch.setattr(module, 'compare', compare)
    return calls


def test_weights_that_a_hook_checked_are_not_checked_again(build_tiny, comparisons):
    """The note is for one model, and no file can contain it."""
    model, other = build_tiny(), build_tiny()
    weights = model.state_dict()
    mark_checked(weights, model)
    for copied in (weights, copy.deepcopy(weights)):
        model.load_state_dict(copied)
        load_state_dict(model, copied)
    assert not comparisons
    other.load_state_dict(weights)
    load_state_dict(other, weights)
    assert len(comparisons) == 2
    assert not is_checked(dict(checked_for=True), model)
    assert not is_checked({}, model)
