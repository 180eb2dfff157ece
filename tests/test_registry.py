"""What `import mae_plugin` changes in mmpretrain, and that it changes nothing else: seen from fresh processes."""

import json
import subprocess
import sys

import pytest
from mmpretrain import get_model, list_models
from mmpretrain.registry import MODELS

import mae_plugin

SNAPSHOT = """
import json, sys
if sys.argv[1] == 'with':
    import mae_plugin
import mmpretrain, mmpretrain.models
from mmengine.registry import Registry
from mmpretrain import registry
from mmpretrain.apis.model import ModelHub
ModelHub._register_mmpretrain_models()
found = {'hub': {name: str(model.config) for name, model in ModelHub._models_dict.items()}}
for name, value in vars(registry).items():
    if isinstance(value, Registry):
        found[name] = {key: f'{cls.__module__}.{cls.__name__}' for key, cls in value.module_dict.items()}
print(json.dumps(found))
"""
MODEL_NAMES = {'mae_vit-base-p16_8xb512-amp-coslr-300e_in1k', 'vit-base-p16_mae-300e-pre_8xb128-coslr-100e_in1k'}


def test_nothing_but_the_promised_names_changes():
    def snapshot(word: str) -> dict:
        done = subprocess.run([sys.executable, '-c', SNAPSHOT, word], capture_output=True, text=True, check=True)
        return json.loads(done.stdout.splitlines()[-1])

    without, with_plugin = snapshot('without'), snapshot('with')
    replaced = {
        (kind, name) for kind in without for name in without[kind] if with_plugin[kind].get(name) != without[kind][name]
    }
    added = {(kind, name) for kind in with_plugin for name in with_plugin[kind] if name not in without[kind]}
    names = {'MAE', 'MAEViT', 'MAEPretrainDecoder', 'MAEPretrainHead'}
    assert replaced == {('MODELS', name) for name in names} | {('hub', name) for name in MODEL_NAMES}
    assert added == {
        ('OPTIM_WRAPPERS', 'AutoAmpOptimWrapper'),
        ('PARAM_SCHEDULERS', 'WarmupCosineLR'),
        ('HOOKS', 'TimeLimitHook'),
    }


def test_names_build_our_classes_and_mmpretrains_stay_importable():
    from mmpretrain import models

    for name in ('MAE', 'MAEViT', 'MAEPretrainDecoder', 'MAEPretrainHead'):
        assert MODELS.get(name) is getattr(mae_plugin, name)
        assert getattr(models, name).__module__.startswith('mmpretrain.')


def test_hub():
    assert set(list_models('*mae*300e*')) >= MODEL_NAMES
    assert set(list_models()) >= MODEL_NAMES
    with pytest.raises(ValueError, match='no-such-model'):
        get_model('no-such-model')
    resnet = get_model('resnet18_8xb32_in1k')
    assert sum(p.numel() for p in resnet.parameters()) == 11_689_512


def test_models_by_name():
    """Parameters as published: 111,907,840, and 86,566,120 plus the LayerNorm after pooling, 2 * 768."""
    import torch

    pretraining = get_model('mae_vit-base-p16_8xb512-amp-coslr-300e_in1k')
    assert isinstance(pretraining, mae_plugin.MAE)
    assert sum(p.numel() for p in pretraining.parameters()) == 111_907_840
    assert pretraining.backbone.pos_embed.any()
    (features,) = pretraining.extract_feat(torch.rand(1, 3, 224, 224))
    assert features.shape == (1, 197, 768)
    classifier = get_model('vit-base-p16_mae-300e-pre_8xb128-coslr-100e_in1k')
    assert sum(p.numel() for p in classifier.parameters()) == 86_566_120 + 2 * 768


def test_importing_twice_is_harmless():
    from mae_plugin.registry import register_all

    before = dict(MODELS.module_dict)
    register_all()
    assert MODELS.module_dict == before
