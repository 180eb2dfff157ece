"""What `import mae_plugin` changes in mmpretrain, and that it changes nothing else: seen from fresh
processes.
"""

import json
import subprocess
import sys
from pathlib import Path

import mae_plugin
import pytest
import torch
from mae_plugin.registry import asset_root
from mmpretrain import get_model, list_models
from mmpretrain.apis.model import ModelHub
from mmpretrain.models import ImageClassifier
from mmpretrain.registry import MODELS

SNAPSHOT = """
import json, sys
if sys.argv[1] == 'with':
    import mae_plugin
import mmpretrain.datasets, mmpretrain.engine, mmpretrain.models
from mmengine.registry import Registry
from mmpretrain import registry
from mmpretrain.apis.model import ModelHub
ModelHub._register_mmpretrain_models()
found = {'hub': {name: str(model.config) for name, model in ModelHub._models_dict.items()}}
for name, value in vars(registry).items():
    if isinstance(value, Registry):
        # torchvision's transforms stand there as partial objects without a name.
        found[name] = {
            key: f"{cls.__module__}.{getattr(cls, '__name__', '')}" for key, cls in value.module_dict.items()
        }
print(json.dumps(found))
"""
ALIAS = 'mae_vit-huge-p14_8xb512-amp-coslr-1600e_in1k'

# The published table: parameters as built, exactly, by name.
PARAMETERS = {
    **{
        f'mae_vit-base-p16_8xb512-amp-coslr-{epochs}e_in1k': 111_907_840
        for epochs in (300, 400, 800, 1600)
    },
    **{
        f'mae_vit-large-p16_8xb512-amp-coslr-{epochs}e_in1k': 329_541_888
        for epochs in (400, 800, 1600)
    },
    'mae_vit-huge-p16_8xb512-amp-coslr-1600e_in1k': 657_074_508,
    **{
        f'vit-base-p16_mae-{epochs}e-pre_8xb128-coslr-100e_in1k': 86_567_656
        for epochs in (300, 400, 800, 1600)
    },
    **{
        f'vit-base-p16_mae-{epochs}e-pre_8xb2048-linear-coslr-90e_in1k': 86_567_656
        for epochs in (300, 400, 800, 1600)
    },
    **{
        f'vit-large-p16_mae-{epochs}e-pre_8xb128-coslr-50e_in1k': 304_326_632
        for epochs in (400, 800, 1600)
    },
    **{
        f'vit-large-p16_mae-{epochs}e-pre_8xb2048-linear-coslr-90e_in1k': 304_326_632
        for epochs in (400, 800, 1600)
    },
    'vit-huge-p14_mae-1600e-pre_8xb128-coslr-50e_in1k': 632_045_800,
    'vit-huge-p14_mae-1600e-pre_32xb8-coslr-50e_in1k-448px': 633_028_840,
}


def test_nothing_but_the_promised_names_changes():
    def snapshot(word: str) -> dict:
        done = subprocess.run(
            [sys.executable, '-c', SNAPSHOT, word], capture_output=True, text=True, check=True
        )
        return json.loads(done.stdout.splitlines()[-1])

    without, with_plugin = snapshot('without'), snapshot('with')
    replaced = {
        (kind, name)
        for kind in without
        for name in without[kind]
        if with_plugin[kind].get(name) != without[kind][name]
    }
    added = {
        (kind, name)
        for kind in with_plugin
        for name in with_plugin[kind]
        if name not in without[kind]
    }
    names = {'MAE', 'MAEViT', 'MAEPretrainDecoder', 'MAEPretrainHead'}
    assert replaced == {('MODELS', name) for name in names} | {('hub', name) for name in PARAMETERS}
    assert added == {
        ('MODELS', 'BandDataPreprocessor'),
        ('OPTIM_WRAPPERS', 'AutoAmpOptimWrapper'),
        ('PARAM_SCHEDULERS', 'WarmupCosineLR'),
        ('OPTIM_WRAPPER_CONSTRUCTORS', 'MergedLayerDecayConstructor'),
        ('OPTIM_WRAPPER_CONSTRUCTORS', 'MergedOptimWrapperConstructor'),
        ('LOOPS', 'ProbeLoop'),
        ('LOOPS', 'ResumableEpochLoop'),
        ('LOOPS', 'ResumableIterLoop'),
        ('DATASETS', 'IndexedImages'),
        ('TRANSFORMS', 'LoadCenterCrop'),
        ('TRANSFORMS', 'LoadRandomCrop'),
        ('HOOKS', 'CompileHook'),
        ('HOOKS', 'DataFitHook'),
        ('HOOKS', 'LeanRuntimeInfoHook'),
        ('HOOKS', 'LenientLoggerHook'),
        ('MMENGINE_MODEL_WRAPPERS', 'FullyShardedModel'),
        ('HOOKS', 'NaNGuardHook'),
        ('HOOKS', 'PreemptionHook'),
        ('HOOKS', 'ReconstructionHook'),
        ('HOOKS', 'RunLockHook'),
        ('HOOKS', 'SafeCheckpointHook'),
        ('HOOKS', 'WeightsFitHook'),
        ('HOOKS', 'TimeLimitHook'),
        ('hub', ALIAS),
    }


def test_names_build_our_classes_and_mmpretrains_stay_importable():
    from mmpretrain import models

    for name in ('MAE', 'MAEViT', 'MAEPretrainDecoder', 'MAEPretrainHead'):
        assert MODELS.get(name) is getattr(mae_plugin, name)
        assert getattr(models, name).__module__.startswith('mmpretrain.')


def test_hub():
    assert len(PARAMETERS) == 24
    assert {*PARAMETERS, ALIAS} <= set(list_models())
    with pytest.raises(ValueError, match='no-such-model'):
        get_model('no-such-model')
    resnet = get_model('resnet18_8xb32_in1k')
    assert sum(p.numel() for p in resnet.parameters()) == 11_689_512


@pytest.mark.parametrize('name', [*PARAMETERS, ALIAS])
def test_models_by_name(name):
    """Config and model of every name: built, the right size, from our files, starting from the
    right weights.
    """
    with torch.device('meta'):
        model = get_model(name)
    assert sum(p.numel() for p in model.parameters()) == PARAMETERS.get(name, 657_074_508)
    assert Path(model._config.filename).is_relative_to(asset_root())
    pretraining = name.startswith('mae_')
    assert isinstance(model, mae_plugin.MAE if pretraining else ImageClassifier)
    assert model.backbone.patch_embed.projection.stride == (
        (14, 14) if 'huge' in name else (16, 16)
    )
    assert bool(model._metainfo.results) != pretraining
    if not pretraining:
        epochs = name.split('mae-')[1].split('-')[0]
        start = model._config.model.backbone.init_cfg.checkpoint
        assert start.rsplit('/')[-1].startswith(f'mae_{name[:8]}') and f'coslr-{epochs}' in start
        (source,) = (ModelHub.get(other) for other in PARAMETERS if name in downstream(other))
        assert source.weights == start


def downstream(name: str) -> list[str]:
    return ModelHub.get(name).data.get('Downstream') or []


def test_importing_twice_is_harmless():
    from mae_plugin.registry import register_all

    before = dict(MODELS.module_dict)
    register_all()
    assert MODELS.module_dict == before
