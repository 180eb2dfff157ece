"""Resolves arguments of the tools to a checked config, or to a model and images."""

from __future__ import annotations

import argparse
import difflib
import inspect
import os
from collections.abc import Iterable, Iterator
from pathlib import Path

import torch
from mmengine.config import Config, ConfigDict
from mmengine.runner import Runner
from mmengine.utils import import_modules_from_strings

from ..analysis import find_images
from ..engine.config.files import WEIGHT_ENDINGS, find_config, merge_options, read_config
from ..engine.config.preflight import data_folder
from ..engine.config.settings import check_settings
from ..utils.atomic_files import why_not_writable
from ..utils.parents import end_with_launcher
from ..weights import trust_checkpoints
from ..weights.loading import read_checkpoint
from ..weights.state_dicts import weights_of

# Top-level settings that mmengine or mmpretrain read from the config, besides those of Runner.
_MORE_SETTINGS = {
    'activation_checkpointing',
    'auto_scale_lr',
    'compile',
    'custom_imports',
    'efficient_conv_bn_eval',
    'find_unused_parameters',
    'model_wrapper_cfg',
    'runner_type',
    'tta_model',
    'tta_pipeline',
}
_DATALOADERS = ('train_dataloader', 'val_dataloader', 'test_dataloader')


def load_config(args: argparse.Namespace) -> Config:
    """Reads a config and merges the common arguments into it.

    Raises:
        FileNotFoundError: if the config does not exist.
        ValueError: if the config cannot be read, a setting is unknown or out of range, or the work
            dir cannot be written.
    """
    file = find_config(args.config)
    if args.trust_checkpoint:
        trust_checkpoints()
    os.environ.setdefault('LOCAL_RANK', str(args.local_rank))
    cfg = read_config(file)
    options = args.cfg_options or {}
    _check_names(cfg, options, args.config)
    merge_options(cfg, options)
    if any(key.startswith('custom_imports') for key in options):
        import_modules_from_strings(**cfg.custom_imports)
    if not isinstance(cfg.get('model'), dict):
        raise ValueError(f'{args.config} configures no model')
    check_settings(cfg)

    cfg.launcher = args.launcher
    if args.launcher != 'none':
        end_with_launcher()
    if args.launcher == 'pytorch' and not torch.cuda.is_available():
        # mmengine supports distributed training only with a GPU.
        torch.distributed.init_process_group('gloo')
        cfg.setdefault('model_wrapper_cfg', dict(type='MMDistributedDataParallel', device_ids=None))
    cfg.work_dir = args.work_dir or cfg.get('work_dir') or f'./work_dirs/{file.stem}'
    _make_work_dir(cfg.work_dir)
    for name in _DATALOADERS:
        if loader := cfg.get(name):
            _merge_loader_arguments(loader, args)
    return cfg


def _check_names(cfg: Config, options: dict, config: str) -> None:
    """Raises ValueError if a top-level name of ``--cfg-options`` is unknown."""
    known = set(cfg) | set(inspect.signature(Runner.__init__).parameters) | _MORE_SETTINGS
    for key in options:
        name = key.split('.')[0]
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1)
            hint = f'did you mean {near[0]}?' if near else f'it has {", ".join(sorted(cfg))}'
            raise ValueError(
                f'{config} has no setting {name}, so {key} would change nothing: {hint}'
            )


def _merge_loader_arguments(loader: ConfigDict, args: argparse.Namespace) -> None:
    """Merges the common arguments into the config of a data loader."""
    if args.data_root:
        loader.dataset.data_root = args.data_root
    loader.setdefault('pin_memory', torch.cuda.is_available())
    loader.setdefault('collate_fn', dict(type='default_collate'))
    loader.pin_memory = loader.pin_memory and not args.no_pin_memory
    # torch raises an error for persistent_workers without workers.
    if loader.get('num_workers', 0) == 0:
        loader.pop('persistent_workers', None)


def _make_work_dir(work_dir: str) -> None:
    """Makes the work dir; raises ValueError if it cannot be made or written."""
    if reason := why_not_writable(work_dir):
        raise ValueError(
            f'the work dir {work_dir} cannot be used ({reason}); name another with --work-dir '
            'FOLDER'
        )


def read_model_arguments(args: argparse.Namespace) -> tuple[str, str | bool, list[Path]]:
    """Returns the model, the weights in the form of mmpretrain's inferencers, and the images.

    Raises:
        FileNotFoundError: if one of them does not exist.
        ValueError: if a config has no checkpoint, or there are no images.
    """
    if args.trust_checkpoint:
        trust_checkpoints()
    place = Path(args.model).expanduser()
    # The name may be one of mmpretrain's. A work dir and a checkpoint come with their weights.
    is_config = args.model.endswith('.py') or (place.is_file() and not is_checkpoint(args.model))
    model = str(find_config(args.model)) if is_config else args.model
    first, *images = args.files
    if first.lower() == 'none':
        pretrained = False
    elif is_checkpoint(first):
        check_checkpoint(first, 'to load')
        pretrained = first
    elif is_config:
        raise ValueError(
            f'name a checkpoint after {args.model}, or None for the model as it is built'
        )
    else:
        pretrained, images = True, args.files
    if not images:
        raise ValueError(f'{first} is a checkpoint; name images, too')
    return model, pretrained, find_images(*images)


def is_checkpoint(path: str) -> bool:
    """Returns whether a path is that of weights: by its extension, or as a Hugging Face folder."""
    return Path(path).suffix in WEIGHT_ENDINGS or Path(path, 'config.json').is_file()


def check_data(cfg: Config, *names: str) -> None:
    """Raises FileNotFoundError if a dataset folder or tar file of these data loaders is missing."""
    for name in names:
        folder = data_folder((cfg.get(name) or {}).get('dataset', {}))
        found = os.path.isdir(folder) or (os.path.isfile(folder) and folder.endswith('.tar'))
        if folder and '://' not in folder and not found:
            raise FileNotFoundError(
                f'the dataset folder {folder} of {name} does not exist; put the images there or '
                'name another place with --data-root FOLDER (and --cfg-options '
                f'{name}.dataset.data_prefix=SUBFOLDER)'
            )


def check_checkpoint(path: str | None, purpose: str) -> None:
    """Raises FileNotFoundError if ``path`` is a local file or folder and does not exist."""
    if path is not None and '://' not in path and not os.path.exists(os.path.expanduser(path)):
        raise FileNotFoundError(f'there is no checkpoint {path!r} {purpose}')


def replace_pretrained(cfg: Config, path: str) -> None:
    """Replaces the checkpoint in every ``init_cfg`` of the model by ``path``.

    Raises:
        ValueError: if the model has no ``init_cfg`` with a checkpoint.
    """
    settings: dict[str, str | None] = {
        setting: path for setting, _ in pretrained_weights(cfg.model)
    }
    if not settings:
        raise ValueError(
            'the config starts from no pre-trained weights; --cfg-options load_from=PATH loads a '
            'whole model'
        )
    file = os.path.expanduser(path)
    if os.path.isfile(file):
        names = weights_of(read_checkpoint(file, 'meta'))
        if 'patch_embed.projection.weight' in names:
            # A file of mmpretrain's backbone alone: its names have no prefix to remove.
            settings |= {setting.replace('.checkpoint', '.prefix'): None for setting in settings}
    cfg.merge_from_dict(settings)


def pretrained_weights(cfg: object, name: str = 'model') -> Iterator[tuple[str, str]]:
    """Yields the setting and the path of every checkpoint in ``init_cfg`` entries within ``cfg``.

    Args:
        cfg: config of a model or a part of it.
        name: setting of ``cfg`` itself.
    """
    if isinstance(cfg, dict):
        if cfg.get('type') == 'Pretrained':
            yield f'{name}.checkpoint', cfg['checkpoint']
        parts: Iterable[tuple[object, object]] = cfg.items()
    elif isinstance(cfg, list):
        parts = enumerate(cfg)
    else:
        return
    for key, value in parts:
        yield from pretrained_weights(value, f'{name}.{key}')
