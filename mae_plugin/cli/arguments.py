"""Arguments that the tools share, with hints for options of other training scripts."""

from __future__ import annotations

import argparse
import difflib
from typing import NoReturn

import torch
from mmengine.config import DictAction

from ..analysis.inferencer import check_device

_IMAGE_SIZE = (
    '--cfg-options model.backbone.img_size=PIXELS train_dataloader.dataset.pipeline.0.scale=PIXELS'
)
# Options of other training scripts, and their equivalent here.
_ELSEWHERE = {
    'epochs': '--cfg-options train_cfg.max_epochs=N',
    'max-epochs': '--cfg-options train_cfg.max_epochs=N',
    'max-iters': '--cfg-options train_cfg.max_iters=N',
    'iters': '--cfg-options train_cfg.max_iters=N',
    'steps': '--cfg-options train_cfg.max_iters=N',
    'lr': '--cfg-options optim_wrapper.optimizer.lr=RATE',
    'blr': '--cfg-options optim_wrapper.optimizer.lr=RATE',
    'learning-rate': '--cfg-options optim_wrapper.optimizer.lr=RATE',
    'weight-decay': '--cfg-options optim_wrapper.optimizer.weight_decay=DECAY',
    'warmup-epochs': '--cfg-options param_scheduler.warmup=EPOCHS',
    'warmup': '--cfg-options param_scheduler.warmup=EPOCHS',
    'workers': '--cfg-options train_dataloader.num_workers=N',
    'num-workers': '--cfg-options train_dataloader.num_workers=N',
    'mask-ratio': '--cfg-options model.backbone.mask_ratio=SHARE',
    'img-size': _IMAGE_SIZE,
    'input-size': _IMAGE_SIZE,
    'num-classes': '--cfg-options model.head.num_classes=N',
    'nb-classes': '--cfg-options model.head.num_classes=N',
    'drop-path': '--cfg-options model.backbone.drop_path_rate=SHARE',
    'seed': '--cfg-options randomness.seed=N',
    'load-from': '--cfg-options load_from=CHECKPOINT',
    'accum-iter': '--accumulate STEPS',
    'batchsize': '--batch-size IMAGES',
    'finetune': '--pretrained CHECKPOINT',
    'resume-from': '--resume CHECKPOINT',
    'output-dir': '--work-dir FOLDER',
    'out-dir': '--work-dir FOLDER',
    'log-dir': '--work-dir FOLDER',
    'data-path': '--data-root FOLDER',
    'data-dir': '--data-root FOLDER',
    'dataset': '--data-root FOLDER',
    'options': '--cfg-options KEY=VALUE',
    'gpus': 'tools/dist_train.sh CONFIG GPUS',
    'device': 'CUDA_VISIBLE_DEVICES=N in the environment, which chooses the GPU',
    'gpu-id': 'CUDA_VISIBLE_DEVICES=N in the environment, which chooses the GPU',
}


class Parser(argparse.ArgumentParser):
    """Parser whose error for an unknown option names the correct one."""

    def error(self, message: str) -> NoReturn:
        """Ends the process with the usage, the error, and a hint for each unknown option."""
        hints = []
        if message.startswith('unrecognized arguments:'):
            hints = [self._hint(word) for word in message.split() if word.startswith('--')]
        # Without empty hints and duplicates, in order.
        super().error('; '.join([message, *dict.fromkeys(filter(None, hints))]))

    def _hint(self, word: str) -> str:
        """Returns a hint for an unknown option; empty if no known option is similar."""
        name = word.lstrip('-').partition('=')[0].replace('_', '-').lower()
        options = [option for option in self._option_string_actions if option.startswith('--')]
        if f'--{name}' in options:
            return f'did you mean --{name}?'
        equivalent = _ELSEWHERE.get(name, '')
        first = equivalent.split(' ')[0]
        # An equivalent that is not an option, such as a variable of the environment, is a hint for
        # the tools with --cfg-options, which are those of training and testing.
        is_for_training = '--cfg-options' in options and not first.startswith('--')
        if equivalent and (first in options or is_for_training):
            return f'instead of {word} give {equivalent}'
        near = difflib.get_close_matches(f'--{name}', options, n=1)
        return f'did you mean {near[0]}?' if near else ''


class _Settings(DictAction):
    """Collects settings of the form ``key=value``."""

    def __call__(self, parser, namespace, values, option_string=None) -> None:
        for value in values:
            if '=' not in value:
                parser.error(
                    f'{option_string} takes settings of the form key=value, but got {value!r}'
                )
        super().__call__(parser, namespace, values, option_string)


def positive(text: str) -> int:
    """Parses a whole number of at least 1."""
    number = int(text) if text.lstrip('-').isdigit() else 0
    if number < 1:
        raise argparse.ArgumentTypeError(f'{text} is no whole number of at least 1')
    return number


def natural(text: str) -> int:
    """Parses a whole number of at least 0."""
    return 0 if text == '0' else positive(text)


def device(text: str) -> str:
    """Parses the name of a device that this machine has."""
    try:
        check_device(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None
    return text


def add_common_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments that training and testing share."""
    parser.add_argument(
        '--work-dir', help='folder for logs and results; ./work_dirs/<config name> if left out'
    )
    parser.add_argument('--data-root', help='dataset folder, in place of the one in the config')
    parser.add_argument(
        '--amp', action='store_true', help='mixed precision, where the device has it'
    )
    parser.add_argument(
        '--no-pin-memory', action='store_true', help='do not pin host memory in data loaders'
    )
    parser.add_argument(
        '--cfg-options',
        nargs='+',
        action=_Settings,
        metavar='KEY=VALUE',
        help='settings to change in the config, such as train_cfg.max_epochs=100 or key="[a,b]" '
        'for a list',
    )
    parser.add_argument(
        '--trust-checkpoint',
        action='store_true',
        help='unpickle all contents of a checkpoint, which can run any code; only for files whose '
        'source you trust',
    )
    parser.add_argument(
        '--launcher',
        choices=['none', 'pytorch', 'slurm', 'mpi'],
        default='none',
        help='job launcher',
    )
    # The predecessor of torchrun passes the rank as an argument instead of a variable.
    parser.add_argument('--local_rank', '--local-rank', type=int, default=0, help=argparse.SUPPRESS)


def add_model_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments for a model and images."""
    parser.add_argument(
        'model',
        metavar='MODEL',
        help='name of a model, path of a config, work dir of a run, or checkpoint of a run',
    )
    parser.add_argument(
        'files',
        nargs='+',
        metavar='[CHECKPOINT] IMAGES',
        help="weights: by default a name's published ones or a run's newest, None for none; then "
        "images, folders or '*.jpg'",
    )
    parser.add_argument(
        '--device',
        type=device,
        default='cuda' if torch.cuda.is_available() else 'cpu',
        help='where to compute',
    )
    parser.add_argument('--batch-size', type=positive, default=8, help='images in a batch')
    parser.add_argument('--force', action='store_true', help='overwrite existing files')
    parser.add_argument(
        '--trust-checkpoint',
        action='store_true',
        help='unpickle all contents of CHECKPOINT, which can run any code',
    )
