"""Checks the settings of a config against what they configure, before anything is built."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Collection, Iterator
from typing import Any

from mmengine import registry as registries
from mmengine.config import Config
from mmengine.registry import Registry
from mmengine.runner import set_random_seed
from torch.utils.data import DataLoader

from .setting_values import check_values
from .signatures import arguments_of

# The registry that is meant by the ``type`` below a setting of this name; elsewhere it is the one
# above.
_REGISTRIES = {
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
_LEVELS = ('DEBUG', 'INFO', 'WARNING', 'ERROR', 'CRITICAL')
_TOP = (
    'model', 'data_preprocessor', 'default_hooks', 'custom_hooks', 'optim_wrapper', 'param_scheduler', 'train_cfg',
    'val_cfg', 'test_cfg', 'val_evaluator', 'test_evaluator', 'visualizer', 'log_processor',
)  # fmt: skip
# With an example of a setting within.
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
_LOADERS = ('train_dataloader', 'val_dataloader', 'test_dataloader')
# What is meant where ``type`` is left out.
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
# Settings that mmengine, or a loop of ours, takes out before the class is built.
_TAKEN_OUT = {
    registries.HOOKS: {'priority'},
    registries.DATA_SAMPLERS: {'repeats'},
    registries.OPTIM_WRAPPERS: {'constructor', 'paramwise_cfg', 'optimizer'},
    registries.PARAM_SCHEDULERS: {'convert_to_iter_based'},
    registries.LOOPS: {'by_epoch'},
    # By RandAugment and AutoAugment.
    registries.TRANSFORMS: {
        'magnitude_key',
        'magnitude_range',
        'magnitude_level',
        'magnitude_std',
        'total_level',
    },
}
_CONSTRUCTORS = (
    'DefaultOptimWrapperConstructor', 'LearningRateDecayOptimWrapperConstructor', 'MergedLayerDecayConstructor',
    'MergedOptimWrapperConstructor',
)  # fmt: skip
_PARAMWISE = {
    'custom_keys', 'bias_lr_mult', 'bias_decay_mult', 'norm_decay_mult', 'dwconv_decay_mult', 'flat_decay_mult',
    'dcn_offset_lr_mult', 'bypass_duplicate', 'layer_decay_rate', 'num_layers',
}  # fmt: skip
# Loss, normalisation and the like of a model are built by functions of their own, which take more
# than the class.
_UNCHECKED = ('norm_cfg', 'act_cfg', 'conv_cfg', 'init_cfg', 'custom_keys', 'metainfo', 'tta_model')


def check_settings(cfg: Config) -> None:
    """Checks every setting that the Runner will use against the class that takes it, and numbers
    against their range.

    Raises:
        ValueError: for a setting that nothing takes, a type that is not registered, a text where a
            number belongs, or a number out of its range. The sentence names the setting as
            ``--cfg-options`` does, and a near name.
    """
    _check_plain(cfg)
    for name, value in cfg.items():
        if name in _DICTS and value is not None and not isinstance(value, dict):
            raise ValueError(f'{name}={value!r} must be a dict of settings, such as {_DICTS[name]}')
        if name == 'custom_hooks' and isinstance(value, dict):
            # What --cfg-options custom_hooks.0.x=1 makes where there are none.
            raise ValueError(
                f'custom_hooks={value!r} must be a list of hooks; the config has none to change'
            )
        if name in _LOADERS:
            _check_loader(name, value, cfg)
        elif name == 'env_cfg':
            _check_names(
                name, value, {'cudnn_benchmark', 'mp_cfg', 'dist_cfg', 'resource_limit'}, 'mmengine'
            )
        elif name == 'auto_scale_lr':
            _check_names(name, value, {'enable', 'base_batch_size'}, 'mmengine')
            check_values(name, value)
        elif name == 'randomness':
            _check_names(
                name, value, set(arguments_of(set_random_seed)) | {'diff_rank_seed'}, 'mmengine'
            )
            check_values(name, value)
        elif name in _TOP:
            _check_tree(name, value, _REGISTRIES[name], cfg, sure=True)


def _check_plain(cfg: Config) -> None:
    for name, kind in (
        ('resume', bool),
        ('load_from', str),
        ('work_dir', str),
        ('experiment_name', str),
    ):
        if not isinstance(cfg.get(name), (kind, type(None))):
            raise ValueError(
                f'{name}={cfg[name]!r} must be {"True or False" if kind is bool else "a text"}'
            )
    level = cfg.get('log_level', 'INFO')
    if isinstance(level, str) and level not in _LEVELS:
        raise ValueError(f'log_level={level} is none of {", ".join(_LEVELS)}')


def _check_loader(path: str, loader: Any, cfg: Config) -> None:
    if not isinstance(loader, dict):
        return
    own = {
        'dataset',
        'sampler',
        'batch_sampler',
        'num_batch_per_epoch',
        'collate_fn',
        'worker_init_fn',
    }
    known = set(arguments_of(DataLoader)) | own
    _check_names(path, loader, known, 'a data loader')
    check_values(path, loader, {**arguments_of(DataLoader), 'batch_size': int, 'num_workers': int})
    for name in ('dataset', 'sampler', 'batch_sampler', 'collate_fn', 'worker_init_fn'):
        if loader.get(name) is not None:
            _check_tree(f'{path}.{name}', loader[name], _REGISTRIES[name], cfg, sure=True)


def _check_tree(path: str, node: Any, registry: Registry, cfg: Config, sure: bool = False) -> None:
    """Checks a dict with a ``type``, and all such within it.

    ``sure`` is set where a type must be found in the registry, as the place says which it is.
    """
    for inner_path, inner, inner_registry, inner_sure in _parts(path, node, registry, sure):
        _check_tree(inner_path, inner, inner_registry, cfg, inner_sure)
    if sure and isinstance(node, (str, int, float)):
        raise ValueError(f'{path}={node!r} must be a dict of settings with a type')
    if not isinstance(node, dict):
        return
    kind = _kind(path, node, registry, cfg, sure)
    if kind is None:
        return
    known = arguments_of(kind)
    title = getattr(kind, '__name__', str(kind))
    settings = {key: value for key, value in node.items() if key not in ('type', '_scope_')}
    if known is not None and (sure or registry is not registries.MODELS):
        _check_names(path, settings, set(known) | _TAKEN_OUT.get(registry, set()), title)
    check_values(path, settings, known, getattr(kind, '__module__', '').startswith('mae_plugin.'))
    if known is not None:
        _check_arch(path, settings, kind)
    if registry is registries.OPTIM_WRAPPERS:
        _check_paramwise(f'{path}.paramwise_cfg', node)


def _check_paramwise(path: str, optim_wrapper: dict) -> None:
    paramwise = optim_wrapper.get('paramwise_cfg')
    if optim_wrapper.get('constructor', _CONSTRUCTORS[0]) in _CONSTRUCTORS and isinstance(
        paramwise, dict
    ):
        _check_names(
            path,
            {key: paramwise[key] for key in paramwise if key[0] != '_'},
            _PARAMWISE,
            'the optimizer',
        )
        check_values(path, paramwise)


def _parts(
    path: str, node: Any, registry: Registry, sure: bool
) -> Iterator[tuple[str, Any, Registry, bool]]:
    """Yields the parts of a node that may have a type: path, part, registry, and whether that
    registry is sure.
    """
    if isinstance(node, (list, tuple)):
        for i, part in enumerate(node):
            yield f'{path}.{i}', part, registry, sure
    elif path in ('default_hooks',) or (
        isinstance(node, dict) and 'type' not in node and path == 'param_scheduler'
    ):
        for key, part in node.items():
            yield f'{path}.{key}', part, registry, sure
    elif isinstance(node, dict):
        for key, part in node.items():
            named = _REGISTRIES.get(key)
            if key in _UNCHECKED:
                continue
            is_part_of_model = registry is registries.MODELS and key in (
                'backbone',
                'neck',
                'head',
                'loss',
                'module',
            )
            yield f'{path}.{key}', part, named or registry, named is not None or is_part_of_model


def _kind(
    path: str, node: dict, registry: Registry, cfg: Config, sure: bool
) -> type | Callable | None:
    """The class that a dict configures; None where that cannot be said."""
    name = node.get('type')
    first, _, last = path.rpartition('.')
    if name is None and first == 'default_hooks':
        name = _DEFAULT_HOOKS.get(last)
    elif name is None and path == 'train_cfg':
        if 'by_epoch' in node:
            name = 'EpochBasedTrainLoop' if node['by_epoch'] else 'IterBasedTrainLoop'
    elif name is None:
        name = _DEFAULT_TYPES.get(path)
    if name is None or callable(name):
        return name
    if not isinstance(name, str):
        raise ValueError(f'{path}.type={name!r} is no name of a class')
    # Functions are mmengine's alone, which it would say.
    scope = None if registry is registries.FUNCTIONS else cfg.get('default_scope') or 'mmpretrain'
    with registry.switch_scope_and_registry(scope) as scoped:
        kind = _find(scoped, name)
        if kind is None and sure:
            raise ValueError(f'{path}.type={name} is not registered{_near(name, _names(scoped))}')
    return kind


def _find(registry: Registry, name: str) -> type | Callable | None:
    # A name that is not known ends in this or that, by the version of mmengine.
    try:
        return registry.get(name)
    except (RuntimeError, ImportError, KeyError):
        return None


def _names(registry: Registry | None) -> set[str]:
    names: set[str] = set()
    while registry is not None:
        names |= set(registry.module_dict)
        registry = registry.parent
    return names


def _check_names(path: str, settings: Any, known: Collection[str], taker: str) -> None:
    for name in settings if isinstance(settings, dict) else ():
        if name not in known:
            for key, part in settings.items():
                if isinstance(part, dict) and name in part:
                    raise ValueError(
                        f'{path} has no setting {name}; did you mean {path}.{key}.{name}?'
                    )
            public = sorted(
                key
                for key in known
                if not key.startswith('_') and key not in ('runner', 'optimizer')
            )
            raise ValueError(
                f'{path} has no setting {name}: {taker} takes none of this '
                f'name{_near(name, public, public[:30])}'
            )


def _near(name: str, known: Collection[str], otherwise: Collection[str] = ()) -> str:
    # Case does not count: batchsize and BatchSize are both near batch_size.
    by_plain = {key.lower(): key for key in known}
    near = difflib.get_close_matches(name.lower(), by_plain, n=1, cutoff=0.6)
    if near:
        return f'; did you mean {by_plain[near[0]]}?'
    return f'; it takes {", ".join(otherwise)}' if otherwise else ''


def _check_arch(path: str, settings: dict, kind: type | Callable) -> None:
    arch, zoo = settings.get('arch'), getattr(kind, 'arch_zoo', None)
    if isinstance(arch, str) and isinstance(zoo, dict) and arch.lower() not in zoo:
        raise ValueError(f'{path}.arch={arch} is none of {", ".join(zoo)}{_near(arch, zoo)}')
