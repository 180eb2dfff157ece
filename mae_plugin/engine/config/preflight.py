"""Checks a built Runner for errors of its first step or validation: sizes, heads and metrics."""

from __future__ import annotations

import os
from collections.abc import Sized

from mmengine.config import Config
from mmengine.logging import print_log
from mmengine.runner import EpochBasedTrainLoop, Runner
from mmpretrain.models.utils import MultiheadAttention
from mmpretrain.registry import METRICS
from torch import nn

from ...models import MAEViT
from ...models.patches import patch_grid, to_pair
from ...utils._compat.mmengine import has_loop
from ...weights.foreign import unwrap

# Steps of a pipeline that crop, with the argument that holds the size of their outputs.
_CROPS = {
    'LoadRandomCrop': 'scale',
    'LoadCenterCrop': 'scale',
    'RandomResizedCrop': 'scale',
    'CenterCrop': 'crop_size',
    'RandomCrop': 'crop_size',
    'EfficientNetCenterCrop': 'crop_size',
    'EfficientNetRandomCrop': 'scale',
}


def preflight(runner: Runner) -> None:
    """Raises ValueError for an error that would end the run at its first step or validation.

    Crops of another size than the model's are only logged, as the model interpolates its position
    embedding.
    """
    model = unwrap(runner.model)
    check_heads(model)
    if has_loop(runner, 'train'):
        _check_crops(runner.cfg, model)
        _check_best(runner.cfg)


def describe_run(runner: Runner) -> str:
    """Returns one line with the number of images, their folder, and the number of steps."""
    dataset = runner.train_dataloader.dataset
    images = f'{len(dataset):,} images' if isinstance(dataset, Sized) else 'images'
    folder = data_folder((runner.cfg.get('train_dataloader') or {}).get('dataset', {}))
    source = f' of {folder}' if folder else ''
    loop = runner.train_loop
    if isinstance(loop, EpochBasedTrainLoop):
        steps = f'{loop.max_epochs:,} epochs of {len(loop.dataloader):,} steps'
    else:
        steps = f'{loop.max_iters:,} steps'
    return f'Training on {images}{source} for {steps}.'


def data_folder(dataset: dict) -> str:
    """Returns the folder, tar file or URL in a dataset's config; empty if it has none."""
    prefix = dataset.get('data_prefix', '')
    if not isinstance(prefix, str):
        prefix = ''
    return os.path.join(dataset.get('data_root') or '', prefix).rstrip('/')


def check_heads(model: nn.Module) -> None:
    """Raises ValueError if the number of heads of an attention does not divide its width."""
    for name, module in model.named_modules():
        if isinstance(module, MultiheadAttention) and module.embed_dims % module.num_heads:
            raise ValueError(
                f'{name} has a width of {module.embed_dims}, which is not a multiple of its '
                f'{module.num_heads} heads; change the width or the number of heads (num_heads, '
                'decoder_num_heads)'
            )


def _crop_size(dataset: dict) -> tuple[int, int] | None:
    """Returns the (H, W) after the last crop of a dataset's pipeline, or None if it is unknown."""
    while 'pipeline' not in dataset and isinstance(dataset.get('dataset'), dict):
        dataset = dataset['dataset']
    for step in reversed(dataset.get('pipeline') or ()):
        kind = step.get('type', '') if isinstance(step, dict) else ''
        size = step.get(_CROPS[kind]) if kind in _CROPS else None
        # OpenMMLab's crops differ in whether the width comes first in a pair.
        if isinstance(size, int) or (size is not None and kind.startswith('Load')):
            return to_pair(size)
    return None


def _check_crops(cfg: Config, model: nn.Module) -> None:
    """Raises ValueError for crops that patches do not divide, and logs another size."""
    backbone = getattr(model, 'backbone', None)
    size = _crop_size((cfg.get('train_dataloader') or {}).get('dataset', {}))
    if size is None:
        return
    if isinstance(backbone, MAEViT):
        try:
            patch_grid(size, backbone.patch_size)
        except ValueError as error:
            raise ValueError(
                f'the crops of train_dataloader do not fit model.backbone: {error}'
            ) from None
    expected = getattr(backbone, 'img_size', None)
    if expected is not None and to_pair(expected) != size:
        print_log(
            f'Crops of {size[0]} x {size[1]} pixels are trained with the interpolated position '
            f'embedding of model.backbone.img_size={tuple(to_pair(expected))}; set img_size to '
            f'{tuple(size)} unless this is intended.',
            'current',
        )


def _check_best(cfg: Config) -> None:
    """Raises ValueError if ``save_best`` is a metric that no evaluator computes."""
    best = (cfg.get('default_hooks') or {}).get('checkpoint', {}).get('save_best')
    validation = cfg.get('val_cfg')
    if not best or best == 'auto' or validation is None:
        return
    if validation.get('type') == 'ProbeLoop':
        prefixes: set[str | None] = {'probe'}
    else:
        evaluators = cfg.get('val_evaluator') or ()
        evaluators = [evaluators] if isinstance(evaluators, dict) else evaluators
        prefixes = {
            each.get('prefix') or getattr(METRICS.get(each['type']), 'default_prefix', None)
            for each in evaluators
        }
        if None in prefixes or not prefixes:
            return
    known = ', '.join(sorted(f'{prefix}/' for prefix in prefixes))
    for key in [best] if isinstance(best, str) else best:
        if '/' in key and key.split('/')[0] not in prefixes:
            raise ValueError(
                f'default_hooks.checkpoint.save_best={key} is computed by no evaluator; names '
                f'begin with {known}'
            )
