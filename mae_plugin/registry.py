"""Registers the plugin's classes and models in mmpretrain's registries and model hub."""

from __future__ import annotations

from mmcv.transforms import BaseTransform
from mmengine.dataset import BaseDataset
from mmengine.hooks import Hook
from mmengine.optim import DefaultOptimWrapperConstructor, OptimWrapper
from mmengine.optim.scheduler.lr_scheduler import LRSchedulerMixin
from mmengine.registry import MODEL_WRAPPERS, Registry
from mmengine.runner import BaseLoop
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
from torch import nn

from . import data, engine, models
from .engine.config.files import asset_root
from .utils._compat.mmpretrain import overriding_hub_models

# The registries of the classes in `data` and `engine`, by base class.
_REGISTRIES = {
    BaseDataset: DATASETS,
    BaseTransform: TRANSFORMS,
    Hook: HOOKS,
    BaseLoop: LOOPS,
    OptimWrapper: OPTIM_WRAPPERS,
    DefaultOptimWrapperConstructor: OPTIM_WRAPPER_CONSTRUCTORS,
    LRSchedulerMixin: PARAM_SCHEDULERS,
    # The Runner looks up model wrappers in mmengine's own registry alone.
    nn.Module: MODEL_WRAPPERS,
}


def register_all() -> None:
    """Registers the plugin's classes and models in mmpretrain's registries and model hub.

    Replaces mmpretrain's ``MAE``, ``MAEViT``, ``MAEPretrainDecoder`` and ``MAEPretrainHead`` and
    the hub's models with names in the plugin's index; every other entry is unchanged.
    """
    for name in models.__all__:
        MODELS.register_module(name=name, module=getattr(models, name), force=True)
    for room in (data, engine):
        for name in room.__all__:
            module = getattr(room, name)
            _registry_of(module).register_module(module=module, force=True)

    with overriding_hub_models():
        ModelHub.register_model_index(asset_root() / 'model-index.yml', config_prefix=asset_root())


def _registry_of(module: type) -> Registry:
    """Returns the registry of a class of ``data`` or ``engine``, by its base class."""
    for base, registry in _REGISTRIES.items():
        if issubclass(module, base):
            return registry
    raise TypeError(f'{module.__name__} has no base class in mae_plugin.registry._REGISTRIES')
