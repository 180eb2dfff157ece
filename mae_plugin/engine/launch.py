"""From a command line to what it names, a config that will run or a model and images: what the tools share."""

from __future__ import annotations

import argparse
import difflib
import inspect
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from urllib.error import URLError

import torch
from mmengine.config import Config, ConfigDict, DictAction
from mmengine.hooks import Hook
from mmengine.registry import RUNNERS
from mmengine.runner import Runner

from ..apis import find_images
from ..checkpoints import trust_checkpoints
from ..checkpoints.formats import weights_of
from ..checkpoints.loading import read_checkpoint
from ..utils.parents import end_with_launcher

# Top-level settings that mmengine or mmpretrain look up in the config without Runner naming them.
_MORE_SETTINGS = {
    'activation_checkpointing', 'auto_scale_lr', 'compile', 'custom_imports', 'efficient_conv_bn_eval',
    'find_unused_parameters', 'model_wrapper_cfg', 'runner_type', 'tta_model', 'tta_pipeline',
}  # fmt: skip
_DATALOADERS = ('train_dataloader', 'val_dataloader', 'test_dataloader')


class SetupErrors(Hook):
    """Turns what goes wrong before the first batch into one sentence on standard error and exit code 1.

    Used as a context around building and running a Runner, and as a hook of that Runner, by which it learns that
    the work has begun: errors after that are not a matter of wrong arguments and keep their traceback, as does
    every error with ``MAE_TRACEBACK=1`` in the environment.
    """

    _running = False

    def build_runner(self, cfg: Config) -> Runner:
        """Builds the Runner of a config, with this object among its hooks."""
        runner = RUNNERS.build(cfg) if 'runner_type' in cfg else Runner.from_cfg(cfg)
        runner.register_hook(self)
        return runner

    def before_train(self, runner: Runner) -> None:
        """Notes that set-up is over."""
        self._running = True

    before_test = before_train

    def __enter__(self) -> SetupErrors:
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: object) -> None:
        if isinstance(error, Exception) and not self._running and not os.environ.get('MAE_TRACEBACK'):
            said = error.args[0] if isinstance(error, KeyError) and error.args else error
            if isinstance(error, URLError):
                said = f'the weights could not be fetched ({error}); name a file on this machine instead'
            sentence = ' '.join(str(said).split()) or kind.__name__
            sys.exit(f'{Path(sys.argv[0]).name}: error: {sentence[:600]}')


class _Settings(DictAction):
    def __call__(self, parser, namespace, values, option_string=None) -> None:
        for value in values:
            if '=' not in value:
                parser.error(f'{option_string} takes settings of the form key=value, but got {value!r}')
        super().__call__(parser, namespace, values, option_string)


def add_common_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments that training and testing have in common."""
    parser.add_argument('--work-dir', help='folder for logs and results; ./work_dirs/<config name> if left out')
    parser.add_argument('--data-root', help='dataset folder, in place of the one in the config')
    parser.add_argument('--amp', action='store_true', help='mixed precision, where the device has it')
    parser.add_argument('--no-pin-memory', action='store_true', help='do not pin host memory in data loaders')
    parser.add_argument(
        '--cfg-options',
        nargs='+',
        action=_Settings,
        metavar='KEY=VALUE',
        help='settings to change in the config, such as train_cfg.max_epochs=100 or key="[a,b]" for a list',
    )
    parser.add_argument(
        '--trust-checkpoint',
        action='store_true',
        help='unpickle whatever a checkpoint holds, which can run any code; only for files whose source you trust',
    )
    parser.add_argument('--launcher', choices=['none', 'pytorch', 'slurm', 'mpi'], default='none', help='job launcher')
    # torchrun's predecessor passes the rank as an argument instead of a variable.
    parser.add_argument('--local_rank', '--local-rank', type=int, default=0, help=argparse.SUPPRESS)


def load_config(args: argparse.Namespace) -> Config:
    """Reads the config and merges the common arguments into it.

    Raises:
        FileNotFoundError: if there is no such config.
        ValueError: for a setting in ``--cfg-options`` that nothing would look at.
    """
    if not Path(args.config).is_file():
        raise FileNotFoundError(f'there is no config {args.config}; ours are in configs/mae and configs/mae/benchmarks')
    if args.trust_checkpoint:
        trust_checkpoints()
    os.environ.setdefault('LOCAL_RANK', str(args.local_rank))
    cfg = Config.fromfile(args.config)
    known = set(cfg) | set(inspect.signature(Runner.__init__).parameters) | _MORE_SETTINGS
    for key in args.cfg_options or {}:
        name = key.split('.')[0]
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1)
            hint = f'did you mean {near[0]}?' if near else f'it has {", ".join(sorted(cfg))}'
            raise ValueError(f'{args.config} has no setting {name}, so {key} would change nothing: {hint}')
    cfg.merge_from_dict(args.cfg_options or {})

    cfg.launcher = args.launcher
    if args.launcher != 'none':
        end_with_launcher()
    if args.launcher == 'pytorch' and not torch.cuda.is_available():
        # mmengine starts distributed training on a GPU or not at all.
        torch.distributed.init_process_group('gloo')
        cfg.setdefault('model_wrapper_cfg', dict(type='MMDistributedDataParallel', device_ids=None))
    cfg.work_dir = args.work_dir or cfg.get('work_dir') or f'./work_dirs/{Path(args.config).stem}'
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


def add_model_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments by which a tool is told a model and images."""
    parser.add_argument('model', metavar='CONFIG_OR_NAME', help='path of a config, or name of a model')
    parser.add_argument(
        'files',
        nargs='+',
        metavar='[CHECKPOINT] IMAGES',
        help="weights, for a name its published ones if left out, None for none; then images, folders or '*.jpg'",
    )
    parser.add_argument('--device', default='cuda' if torch.cuda.is_available() else 'cpu', help='where to compute')
    parser.add_argument('--batch-size', type=int, default=8, help='images at once')
    parser.add_argument('--force', action='store_true', help='overwrite what is there')
    parser.add_argument(
        '--trust-checkpoint', action='store_true', help='unpickle whatever CHECKPOINT holds, which can run any code'
    )


def read_model_arguments(args: argparse.Namespace) -> tuple[str, str | bool, list[Path]]:
    """The config or name, the weights as mmpretrain's inferencers take them, and the images.

    Raises:
        FileNotFoundError: if one of them does not exist.
        ValueError: for a config without a checkpoint, or without images.
    """
    if args.trust_checkpoint:
        trust_checkpoints()
    is_config = args.model.endswith('.py')
    if is_config and not Path(args.model).is_file():
        raise FileNotFoundError(f'there is no config {args.model}')
    first, *images = args.files
    if first.lower() == 'none':
        pretrained = False
    elif Path(first).suffix in ('.pth', '.pt', '.bin', '.safetensors') or Path(first, 'config.json').is_file():
        check_checkpoint(first, 'to load')
        pretrained = first
    elif is_config:
        raise ValueError(f'name a checkpoint after {args.model}, or None to look at the model as it is built')
    else:
        pretrained, images = True, args.files
    if not images:
        raise ValueError(f'{first} is a checkpoint; name images, too')
    return args.model, pretrained, find_images(*images)


def check_data(cfg: Config, *names: str) -> None:
    """Raises FileNotFoundError if a dataset folder, or tar file, of the named data loaders does not exist."""
    for name in names:
        dataset = (cfg.get(name) or {}).get('dataset', {})
        prefix = dataset.get('data_prefix', '')
        folder = os.path.join(dataset.get('data_root') or '', prefix if isinstance(prefix, str) else '').rstrip('/')
        found = os.path.isdir(folder) or (os.path.isfile(folder) and folder.endswith('.tar'))
        if folder and '://' not in folder and not found:
            raise FileNotFoundError(
                f'the dataset folder {folder} of {name} does not exist; put the images there or name another place '
                f'with --data-root FOLDER (and --cfg-options {name}.dataset.data_prefix=SUBFOLDER)'
            )


def check_checkpoint(path: str | None, purpose: str) -> None:
    """Raises FileNotFoundError if ``path``, where it names a local file or folder, does not exist."""
    if path is not None and '://' not in path and not os.path.exists(os.path.expanduser(path)):
        raise FileNotFoundError(f'there is no checkpoint {path!r} {purpose}')


def replace_pretrained(cfg: Config, path: str) -> None:
    """Lets every ``init_cfg`` of the model that loads a checkpoint load ``path``; ValueError if there is none."""
    settings = {setting: path for setting, _ in pretrained_weights(cfg.model)}
    if not settings:
        raise ValueError(
            'the config starts from no pre-trained weights; --cfg-options load_from=PATH loads a whole model'
        )
    file = os.path.expanduser(path)
    if os.path.isfile(file) and 'patch_embed.projection.weight' in weights_of(read_checkpoint(file, 'meta')):
        # mmpretrain's backbone alone: there is no prefix to take off.
        settings |= {setting.replace('.checkpoint', '.prefix'): None for setting in settings}
    cfg.merge_from_dict(settings)


def pretrained_weights(cfg: ConfigDict, name: str = 'model') -> Iterator[tuple[str, str]]:
    """Yields the setting and the path of every checkpoint that ``init_cfg`` entries within ``cfg`` load."""
    if isinstance(cfg, dict) and cfg.get('type') == 'Pretrained':
        yield f'{name}.checkpoint', cfg['checkpoint']
    parts = cfg.items() if isinstance(cfg, dict) else enumerate(cfg) if isinstance(cfg, list) else ()
    for key, value in parts:
        yield from pretrained_weights(value, f'{name}.{key}')
