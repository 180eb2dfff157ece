"""Checks the settings of a config against the classes that they build, before anything is built.

``setting_types`` finds the class of each dict of settings, ``signatures`` its arguments, and
``setting_values`` checks the values.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Any

from mmengine import registry as registries
from mmengine.config import Config
from mmengine.registry import Registry
from mmengine.runner import set_random_seed
from torch.utils.data import DataLoader

from .setting_types import REGISTRIES, class_of, parts_of, suggest
from .setting_values import check_values
from .signatures import arguments_of

_LEVELS = ('DEBUG', 'INFO', 'WARNING', 'ERROR', 'CRITICAL')
_LOADERS = ('train_dataloader', 'val_dataloader', 'test_dataloader')
# Settings of the Runner that build objects.
_BUILT = (
    'model',
    'data_preprocessor',
    'default_hooks',
    'custom_hooks',
    'optim_wrapper',
    'param_scheduler',
    'train_cfg',
    'val_cfg',
    'test_cfg',
    'val_evaluator',
    'test_evaluator',
    'visualizer',
    'log_processor',
)
# Settings that must be dicts, each with an example for the error message.
_DICTS = {
    'model': 'model.backbone.img_size=224',
    'default_hooks': 'default_hooks.checkpoint.interval=1',
    'optim_wrapper': 'optim_wrapper.optimizer.lr=1e-3',
    'train_cfg': 'train_cfg.max_epochs=100',
    'val_cfg': 'val_cfg.type=ValLoop',
    'test_cfg': 'test_cfg.type=TestLoop',
    'train_dataloader': 'train_dataloader.batch_size=64',
    'val_dataloader': 'val_dataloader.batch_size=64',
    'test_dataloader': 'test_dataloader.batch_size=64',
    'env_cfg': 'env_cfg.cudnn_benchmark=True',
    'auto_scale_lr': 'auto_scale_lr.enable=True',
    'randomness': 'randomness.seed=0',
}
# The names that mmengine reads in settings that build nothing.
_NAMES = {
    'env_cfg': {'cudnn_benchmark', 'mp_cfg', 'dist_cfg', 'resource_limit'},
    'auto_scale_lr': {'enable', 'base_batch_size'},
    'randomness': {*(arguments_of(set_random_seed) or ()), 'diff_rank_seed'},
}
# Settings that mmengine or a resumable loop removes before the class is built.
_REMOVED = {
    registries.HOOKS: {'priority'},
    registries.DATA_SAMPLERS: {'repeats'},
    registries.OPTIM_WRAPPERS: {'constructor', 'paramwise_cfg', 'optimizer'},
    registries.PARAM_SCHEDULERS: {'convert_to_iter_based'},
    registries.LOOPS: {'by_epoch'},
    # RandAugment and AutoAugment remove these.
    registries.TRANSFORMS: {
        'magnitude_key',
        'magnitude_range',
        'magnitude_level',
        'magnitude_std',
        'total_level',
    },
}
_BUILT_IN_LOADERS = ('dataset', 'sampler', 'batch_sampler', 'collate_fn', 'worker_init_fn')
# Constructors of optimizer wrappers whose `paramwise_cfg` is known.
_CONSTRUCTORS = (
    'DefaultOptimWrapperConstructor',
    'LearningRateDecayOptimWrapperConstructor',
    'MergedLayerDecayConstructor',
    'MergedOptimWrapperConstructor',
)
_PARAMWISE = {
    'custom_keys',
    'bias_lr_mult',
    'bias_decay_mult',
    'norm_decay_mult',
    'dwconv_decay_mult',
    'flat_decay_mult',
    'dcn_offset_lr_mult',
    'bypass_duplicate',
    'layer_decay_rate',
    'num_layers',
}
# Number of valid names that a message lists.
_LISTED = 30


def check_settings(cfg: Config) -> None:
    """Checks all settings that the Runner uses against the classes that they build.

    Raises:
        ValueError: for a setting that its class does not have, a type that is not registered, a
            text in place of a number, or a number out of its range. The message names the setting
            as ``--cfg-options`` does, and a similar name.
    """
    _check_plain(cfg)
    for name, value in cfg.items():
        if name in _DICTS and value is not None and not isinstance(value, dict):
            raise ValueError(f'{name}={value!r} must be a dict of settings, such as {_DICTS[name]}')
        if name == 'custom_hooks' and isinstance(value, dict):
            # `--cfg-options custom_hooks.0.x=1` makes a dict if the config has no hooks.
            raise ValueError(
                f'custom_hooks={value!r} must be a list of hooks; the config has none to change'
            )
        if name in _LOADERS:
            _check_loader(name, value, cfg)
        elif name in _NAMES:
            _check_names(name, value, _NAMES[name], 'mmengine')
            if name != 'env_cfg':
                check_values(name, value)
        elif name in _BUILT:
            _check_tree(name, value, REGISTRIES[name], cfg, sure=True)


def _check_plain(cfg: Config) -> None:
    """Checks settings that are plain values."""
    if not isinstance(cfg.get('resume'), (bool, type(None))):
        raise ValueError(f'resume={cfg.resume!r} must be True or False')
    for name in ('load_from', 'work_dir', 'experiment_name'):
        if not isinstance(cfg.get(name), (str, type(None))):
            raise ValueError(f'{name}={cfg[name]!r} must be a text')
    level = cfg.get('log_level', 'INFO')
    if isinstance(level, str) and level not in _LEVELS:
        raise ValueError(f'log_level={level} is not one of {", ".join(_LEVELS)}')


def _check_loader(path: str, loader: Any, cfg: Config) -> None:
    """Checks the settings of a data loader."""
    if not isinstance(loader, dict):
        return
    arguments = arguments_of(DataLoader) or {}
    known = {*arguments, *_BUILT_IN_LOADERS, 'num_batch_per_epoch'}
    _check_names(path, loader, known, 'a data loader')
    check_values(path, loader, {**arguments, 'batch_size': int, 'num_workers': int})
    for name in _BUILT_IN_LOADERS:
        if loader.get(name) is not None:
            _check_tree(f'{path}.{name}', loader[name], REGISTRIES[name], cfg, sure=True)


def _check_tree(path: str, node: Any, registry: Registry, cfg: Config, sure: bool = False) -> None:
    """Checks a dict with a ``type``, and all dicts in it.

    Args:
        path: path of the node in the config.
        node: the dict, or a list of dicts.
        registry: registry of the type.
        cfg: the whole config.
        sure: whether a type must be in the registry, as the path implies it.
    """
    for part_path, part, part_registry, part_sure in parts_of(path, node, registry, sure):
        _check_tree(part_path, part, part_registry, cfg, part_sure)
    if sure and isinstance(node, (str, int, float)):
        raise ValueError(f'{path}={node!r} must be a dict of settings with a type')
    if not isinstance(node, dict):
        return
    kind = class_of(path, node, registry, cfg, sure)
    if kind is None:
        return
    known = arguments_of(kind)
    settings = {key: value for key, value in node.items() if key not in ('type', '_scope_')}
    if known is not None and (sure or registry is not registries.MODELS):
        title = getattr(kind, '__name__', str(kind))
        _check_names(path, settings, {*known, *_REMOVED.get(registry, ())}, title)
    # Annotations of this plugin are reliable.
    strict = getattr(kind, '__module__', '').startswith('mae_plugin.')
    check_values(path, settings, known, strict)
    if known is not None:
        _check_arch(path, settings, kind)
    if registry is registries.OPTIM_WRAPPERS:
        _check_paramwise(f'{path}.paramwise_cfg', node)


def _check_paramwise(path: str, optim_wrapper: dict) -> None:
    """Checks the settings of parameter groups."""
    paramwise = optim_wrapper.get('paramwise_cfg')
    constructor = optim_wrapper.get('constructor', _CONSTRUCTORS[0])
    if constructor in _CONSTRUCTORS and isinstance(paramwise, dict):
        public = {key: value for key, value in paramwise.items() if not key.startswith('_')}
        _check_names(path, public, _PARAMWISE, 'the optimizer')
        check_values(path, paramwise)


def _check_names(path: str, settings: Any, known: Collection[str], owner: str) -> None:
    """Raises ValueError for a setting that its owner does not have."""
    if not isinstance(settings, dict):
        return
    for name in settings:
        if name in known:
            continue
        for key, part in settings.items():
            if isinstance(part, dict) and name in part:
                raise ValueError(f'{path} has no setting {name}; did you mean {path}.{key}.{name}?')
        # The Runner sets `runner` and `optimizer`.
        hidden = {'runner', 'optimizer'}
        public = sorted(key for key in known if not key.startswith('_') and key not in hidden)
        raise ValueError(
            f'{path} has no setting {name}: {owner} takes none of this '
            f'name{suggest(name, public, public[:_LISTED])}'
        )


def _check_arch(path: str, settings: dict, kind: type | Callable) -> None:
    """Raises ValueError for an unknown name of an architecture."""
    arch, zoo = settings.get('arch'), getattr(kind, 'arch_zoo', None)
    if isinstance(arch, str) and isinstance(zoo, dict) and arch.lower() not in zoo:
        raise ValueError(f'{path}.arch={arch} is not one of {", ".join(zoo)}{suggest(arch, zoo)}')
