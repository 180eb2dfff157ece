"""mmpretrain's functions on the plugin's models: by name, on an image, with given weights."""

import inspect

import numpy as np
import pytest
import torch
from mmpretrain import FeatureExtractor, get_model, inference_model, list_models

from .conftest import ROOT
from .test_registry import ALIAS, PARAMETERS

BIRD = str(ROOT / 'demo' / 'bird.JPEG')
PRETRAINING = [name for name in (*PARAMETERS, ALIAS) if name.startswith('mae_')]
CLASSIFIERS = [name for name in PARAMETERS if not name.startswith('mae_')]


def small(name: str) -> dict:
    """Returns changes that make a model small and keep its pipeline, head and registration."""
    if name.startswith('mae_'):
        return dict(backbone=dict(arch='deit-tiny'), neck=dict(decoder_depth=1))
    changes = dict(backbone=dict(arch='deit-tiny', init_cfg=None), head=dict(in_channels=192))
    if 'linear' in name:
        changes['backbone']['frozen_stages'] = 12
        changes['neck'] = dict(input_features=192)
    return changes


def build(name: str, **kwargs) -> torch.nn.Module:
    torch.manual_seed(0)
    model = get_model(name, **small(name), **kwargs)
    model.init_weights()
    return model


def test_published_snippets():
    model = get_model('mae_vit-base-p16_8xb512-amp-coslr-300e_in1k')
    inputs = torch.rand(1, 3, 224, 224)
    assert model(inputs)[0].shape == model.extract_feat(inputs)[0].shape == (1, 197, 768)
    prediction = inference_model('vit-base-p16_mae-300e-pre_8xb128-coslr-100e_in1k', BIRD)
    assert set(prediction) >= {'pred_label', 'pred_score', 'pred_class', 'pred_scores'}
    assert prediction['pred_scores'].shape == (1000,)
    assert isinstance(prediction['pred_class'], str)


@pytest.mark.parametrize('name', CLASSIFIERS)
def test_inference_model(name):
    prediction = inference_model(build(name), BIRD)
    assert prediction['pred_label'] == np.argmax(prediction['pred_scores'])
    assert prediction['pred_scores'].sum() == pytest.approx(1, rel=1e-4)


@pytest.mark.parametrize('name', [*PRETRAINING, *CLASSIFIERS])
def test_feature_extractor(name):
    (features,) = FeatureExtractor(build(name))(BIRD)[0]
    size, patch = (448 if '448' in name else 224), (14 if 'huge' in name else 16)
    expected = (1 + (size // patch) ** 2, 192) if name.startswith('mae_') else (192,)
    assert features.shape == expected
    assert features.isfinite().all()


@pytest.mark.parametrize('name', [PRETRAINING[0], CLASSIFIERS[0]])
def test_weights_of_ones_own(name, tmp_path):
    source = build(name)
    for parameter in source.parameters():
        parameter.data += 0.1
    torch.save(dict(state_dict=source.state_dict()), tmp_path / 'weights.pth')
    model = get_model(name, pretrained=str(tmp_path / 'weights.pth'), **small(name))
    for key, tensor in source.state_dict().items():
        assert torch.equal(model.state_dict()[key], tensor), key


def test_pretraining_is_no_classifier():
    """mmpretrain's own function, which the plugin extends, finds no task in the model's entry."""
    with pytest.raises(NotImplementedError):
        inspect.unwrap(inference_model)(PRETRAINING[0], BIRD)


def test_list_models():
    assert set(list_models('vit-*mae-*-pre*', task='Image Classification')) >= set(CLASSIFIERS)
