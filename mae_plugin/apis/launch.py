"""From a command line to what it names, a config that will run or a model and images: what the
tools share.
"""

from __future__ import annotations

import argparse
import difflib
import inspect
import os
from collections.abc import Iterator
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
from ..weights.file_formats import weights_of
from ..weights.loading import read_checkpoint

# Top-level settings that mmengine or mmpretrain look up in the config without Runner naming them.
_MORE_SETTINGS = {
    'activation_checkpointing', 'auto_scale_lr', 'compile', 'custom_imports', 'efficient_conv_bn_eval',
    'find_unused_parameters', 'model_wrapper_cfg', 'runner_type', 'tta_model', 'tta_pipeline',
}  # fmt: skip
_DATALOADERS = ('train_dataloader', 'val_dataloader', 'test_dataloader')


def load_config(args: argparse.Namespace) -> Config:
    """Reads the config and merges the common arguments into it.

    Raises:
        FileNotFoundError: if there is no such config.
        ValueError: for a config that cannot be read, a setting that nothing takes or that is out of
            its range, or a work dir that cannot be written.
    """
    file = find_config(args.config)
    if args.trust_checkpoint:
        trust_checkpoints()
    os.environ.setdefault('LOCAL_RANK', str(args.local_rank))
    cfg = read_config(file)
    known = set(cfg) | set(inspect.signature(Runner.__init__).parameters) | _MORE_SETTINGS
    for key in args.cfg_options or {}:
        name = key.split('.')[0]
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1)
            hint = f'did you mean {near[0]}?' if near else f'it has {", ".join(sorted(cfg))}'
            raise ValueError(
                f'{args.config} has no setting {name}, so {key} would change nothing: {hint}'
            )
    merge_options(cfg, args.cfg_options or {})
    if any(key.startswith('custom_imports') for key in args.cfg_options or {}):
        import_modules_from_strings(**cfg.custom_imports)
    if not isinstance(cfg.get('model'), dict):
        raise ValueError(f'{args.config} configures no model')
    check_settings(cfg)

    cfg.launcher = args.launcher
    if args.launcher != 'none':
        end_with_launcher()
    if args.launcher == 'pytorch' and not torch.cuda.is_available():
        # mmengine starts distributed training on a GPU or not at all.
        torch.distributed.init_process_group('gloo')
        cfg.setdefault('model_wrapper_cfg', dict(type='MMDistributedDataParallel', device_ids=None))
    cfg.work_dir = args.work_dir or cfg.get('work_dir') or f'./work_dirs/{file.stem}'
    _make_work_dir(cfg.work_dir)
    for name in _DATALOADERS:
        if loader := cfg.get(name):
            if args.data_root:
                loader.dataset.data_root = args.data_root
            loader.setdefault('pin_memory', torch.cuda.is_available())
            loader.setdefault('collate_fn', dict(type='default_collate'))
            loader.pin_memory = loader.pin_memory and not args.no_pin_memory
            # A loader without workers has none to keep, and torch makes an error of asking it to.
            if loader.get('num_workers', 0) == 0:
                loader.pop('persistent_workers', None)
    return cfg


def _make_work_dir(work_dir: str) -> None:
    """Makes the work dir; ValueError if it cannot be made or written."""
    if reason := why_not_writable(work_dir):
        raise ValueError(
            f'the work dir {work_dir} cannot be used ({reason}); name another with --work-dir '
            'FOLDER'
        )


def read_model_arguments(args: argparse.Namespace) -> tuple[str, str | bool, list[Path]]:
    """The model, the weights as mmpretrain's inferencers take them, and the images.

    Raises:
        FileNotFoundError: if one of them does not exist.
        ValueError: for a config without a checkpoint, or without images.
    """
    if args.trust_checkpoint:
        trust_checkpoints()
    place = Path(args.model).expanduser()
    # A name may be one that mmpretrain alone has; a work dir and a checkpoint bring their weights.
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
            f'name a checkpoint after {args.model}, or None to look at the model as it is built'
        )
    else:
        pretrained, images = True, args.files
    if not images:
        raise ValueError(f'{first} is a checkpoint; name images, too')
    return model, pretrained, find_images(*images)


def is_checkpoint(path: str) -> bool:
    """Whether a path is that of weights: by its ending, or as a folder of Hugging Face's."""
    return Path(path).suffix in WEIGHT_ENDINGS or Path(path, 'config.json').is_file()


def check_data(cfg: Config, *names: str) -> None:
    """Raises FileNotFoundError if a dataset folder, or tar file, of the named data loaders does not
    exist.
    """
    for name in names:
        folder = data_folder((cfg.get(name) or {}).get('dataset', {}))
        found = os.path.isdir(folder) or (os.path.isfile(folder) and folder.endswith('.tar'))
        if folder and '://' not in folder and not found:
            raise FileNotFoundError(
                f'the dataset folder {folder} of {name} does not exist; put the images there or '
                'name another place '
                f'with --data-root FOLDER (and --cfg-options {name}.dataset.data_prefix=SUBFOLDER)'
            )


def check_checkpoint(path: str | None, purpose: str) -> None:
    """Raises FileNotFoundError if ``path``, where it names a local file or folder, does not
    exist.
    """
    if path is not None and '://' not in path and not os.path.exists(os.path.expanduser(path)):
        raise FileNotFoundError(f'there is no checkpoint {path!r} {purpose}')


def replace_pretrained(cfg: Config, path: str) -> None:
    """Lets every ``init_cfg`` of the model that loads a checkpoint load ``path``; ValueError if
    there is none.
    """
    settings = {setting: path for setting, _ in pretrained_weights(cfg.model)}
    if not settings:
        raise ValueError(
            'the config starts from no pre-trained weights; --cfg-options load_from=PATH loads a '
            'whole model'
        )
    file = os.path.expanduser(path)
    if os.path.isfile(file) and 'patch_embed.projection.weight' in weights_of(
        read_checkpoint(file, 'meta')
    ):
        # mmpretrain's backbone alone: there is no prefix to take off.
        settings |= {setting.replace('.checkpoint', '.prefix'): None for setting in settings}
    cfg.merge_from_dict(settings)


def pretrained_weights(cfg: ConfigDict, name: str = 'model') -> Iterator[tuple[str, str]]:
    """Yields the setting and the path of every checkpoint that ``init_cfg`` entries within ``cfg``
    load.
    """
    if isinstance(cfg, dict) and cfg.get('type') == 'Pretrained':
        yield f'{name}.checkpoint', cfg['checkpoint']
    parts = (
        cfg.items() if isinstance(cfg, dict) else enumerate(cfg) if isinstance(cfg, list) else ()
    )
    for key, value in parts:
        yield from pretrained_weights(value, f'{name}.{key}')
