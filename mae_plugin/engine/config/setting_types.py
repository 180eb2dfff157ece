"""Finds the classes that the settings of a config build, by their place and ``type``."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Collection, Iterator
from typing import Any

from mmengine import registry as registries
from mmengine.config import Config
from mmengine.registry import Registry

# The registry of the `type` below a setting of this name. Elsewhere it is that of the parent.
REGISTRIES = {
    'model': registries.MODELS,
    'data_preprocessor': registries.MODELS,
    'default_hooks': registries.HOOKS,
    'custom_hooks': registries.HOOKS,
    'dataset': registries.DATASETS,
    'datasets': registries.DATASETS,
    'collate_fn': registries.FUNCTIONS,
    'worker_init_fn': registries.FUNCTIONS,
    'sampler': registries.DATA_SAMPLERS,
    'batch_sampler': registries.DATA_SAMPLERS,
    'pipeline': registries.TRANSFORMS,
    'transforms': registries.TRANSFORMS,
    'optim_wrapper': registries.OPTIM_WRAPPERS,
    'optimizer': registries.OPTIMIZERS,
    'param_scheduler': registries.PARAM_SCHEDULERS,
    'train_cfg': registries.LOOPS,
    'val_cfg': registries.LOOPS,
    'test_cfg': registries.LOOPS,
    'val_evaluator': registries.METRICS,
    'test_evaluator': registries.METRICS,
    'visualizer': registries.VISUALIZERS,
    'vis_backends': registries.VISBACKENDS,
    'log_processor': registries.LOG_PROCESSORS,
}
# Types that mmengine uses where `type` is left out.
_DEFAULT_TYPES = {
    'optim_wrapper': 'OptimWrapper',
    'val_cfg': 'ValLoop',
    'test_cfg': 'TestLoop',
    'log_processor': 'LogProcessor',
}
_DEFAULT_HOOKS = {
    'runtime_info': 'RuntimeInfoHook',
    'timer': 'IterTimerHook',
    'sampler_seed': 'DistSamplerSeedHook',
    'logger': 'LoggerHook',
    'param_scheduler': 'ParamSchedulerHook',
    'checkpoint': 'CheckpointHook',
}
# Parts of a model that are modules of their own.
_MODULES = ('backbone', 'neck', 'head', 'loss', 'module')
# Normalization layers and the like are built by functions that take more than the class does.
_UNCHECKED = ('norm_cfg', 'act_cfg', 'conv_cfg', 'init_cfg', 'custom_keys', 'metainfo', 'tta_model')
# Similarity from which a name is suggested.
_SIMILAR = 0.6


def parts_of(
    path: str, node: Any, registry: Registry, sure: bool
) -> Iterator[tuple[str, Any, Registry, bool]]:
    """Yields the parts of a node that may have a type.

    Args:
        path: path of the node in the config.
        node: dict or list of settings; any other value has no parts.
        registry: registry of the node's type.
        sure: whether a type must be in that registry.

    Yields:
        Path, part, registry, and whether a type must be in that registry.
    """
    if isinstance(node, (list, tuple)):
        for i, part in enumerate(node):
            yield f'{path}.{i}', part, registry, sure
    elif not isinstance(node, dict):
        return
    elif path == 'default_hooks' or (path == 'param_scheduler' and 'type' not in node):
        # Hooks or schedules by name.
        for key, part in node.items():
            yield f'{path}.{key}', part, registry, sure
    else:
        for key, part in node.items():
            if key in _UNCHECKED:
                continue
            named = REGISTRIES.get(key)
            is_module = registry is registries.MODELS and key in _MODULES
            yield f'{path}.{key}', part, named or registry, named is not None or is_module


def class_of(
    path: str, node: dict, registry: Registry, cfg: Config, sure: bool
) -> type | Callable | None:
    """Returns the class or function that a dict of settings builds; None if it is unknown.

    Raises:
        ValueError: for a type that is not registered, if ``sure`` is set.
    """
    name = node.get('type')
    if name is None:
        name = _default_type(path, node)
    if name is None or callable(name):
        return name
    if not isinstance(name, str):
        raise ValueError(f'{path}.type={name!r} is not the name of a class')
    # Functions are registered in mmengine alone, and a scope would log a warning.
    scope = None if registry is registries.FUNCTIONS else cfg.get('default_scope') or 'mmpretrain'
    with registry.switch_scope_and_registry(scope) as scoped:
        kind = _find(scoped, name)
        if kind is None and sure:
            raise ValueError(f'{path}.type={name} is not registered{suggest(name, _names(scoped))}')
    return kind


def _default_type(path: str, node: dict) -> str | None:
    """Returns the type that mmengine uses for settings without one."""
    parent, _, name = path.rpartition('.')
    if parent == 'default_hooks':
        return _DEFAULT_HOOKS.get(name)
    if path == 'train_cfg':
        if 'by_epoch' not in node:
            return None
        return 'EpochBasedTrainLoop' if node['by_epoch'] else 'IterBasedTrainLoop'
    return _DEFAULT_TYPES.get(path)


def _find(registry: Registry, name: str) -> type | Callable | None:
    """Returns a registered class or function, or None."""
    try:
        return registry.get(name)
    except (RuntimeError, ImportError, KeyError):
        # The error for an unknown name depends on the version of mmengine.
        return None


def _names(registry: Registry | None) -> set[str]:
    """Returns the names in a registry and its parents."""
    names: set[str] = set()
    while registry is not None:
        names |= set(registry.module_dict)
        registry = registry.parent
    return names


def suggest(name: str, known: Collection[str], otherwise: Collection[str] = ()) -> str:
    """Returns the end of an error message that suggests a similar name.

    Args:
        name: the unknown name.
        known: valid names.
        otherwise: names to list if none is similar.
    """
    # Case is ignored: batchsize and BatchSize are both similar to batch_size.
    by_lower = {key.lower(): key for key in known}
    near = difflib.get_close_matches(name.lower(), by_lower, n=1, cutoff=_SIMILAR)
    if near:
        return f'; did you mean {by_lower[near[0]]}?'
    return f'; valid names are {", ".join(otherwise)}' if otherwise else ''
