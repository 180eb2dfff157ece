"""The one place that touches mmpretrain's registries and model hub."""

from __future__ import annotations

from mmengine.registry import MODEL_WRAPPERS, Registry
from mmpretrain.apis.model import ModelHub
from mmpretrain.registry import (
    DATASETS,
    HOOKS,
    LOOPS,
    MODELS,
    OPTIM_WRAPPER_CONSTRUCTORS,
    OPTIM_WRAPPERS,
    PARAM_SCHEDULERS,
    TRANSFORMS,
)

from . import data, engine, models
from .engine.config.files import asset_root
from .utils._compat.mmpretrain import overriding_hub_models


def register_all() -> None:
    """Puts the plugin's classes into mmpretrain's registries and its models into mmpretrain's hub.

    Replaces mmpretrain's ``MAE``, ``MAEViT``, ``MAEPretrainDecoder`` and ``MAEPretrainHead`` and
    the hub's models of the names in our index; every other entry stays as it was.
    """
    for name in models.__all__:
        MODELS.register_module(name=name, module=getattr(models, name), force=True)
    added: dict[Registry, list[type]] = {
        DATASETS: [data.IndexedImages],
        HOOKS: [
            engine.CompileHook,
            engine.DataFitHook,
            engine.LeanRuntimeInfoHook,
            engine.LenientLoggerHook,
            engine.NaNGuardHook,
            engine.PreemptionHook,
            engine.ReconstructionHook,
            engine.RunLockHook,
            engine.SafeCheckpointHook,
            engine.TimeLimitHook,
            engine.WeightsFitHook,
        ],
        LOOPS: [engine.ProbeLoop, engine.ResumableEpochLoop, engine.ResumableIterLoop],
        OPTIM_WRAPPER_CONSTRUCTORS: [
            engine.MergedLayerDecayConstructor,
            engine.MergedOptimWrapperConstructor,
        ],
        OPTIM_WRAPPERS: [engine.AutoAmpOptimWrapper],
        # The Runner looks for wrappers in mmengine's own registry alone.
        MODEL_WRAPPERS: [engine.FullyShardedModel],
        PARAM_SCHEDULERS: [engine.WarmupCosineLR],
        TRANSFORMS: [data.LoadCenterCrop, data.LoadRandomCrop],
    }
    for registry, classes in added.items():
        for cls in classes:
            registry.register_module(module=cls, force=True)

    with overriding_hub_models():
        ModelHub.register_model_index(asset_root() / 'model-index.yml', config_prefix=asset_root())
