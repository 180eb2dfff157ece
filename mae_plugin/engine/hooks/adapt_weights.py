"""Weights that are not the model's end a run before it begins; those of another size are brought to
the model's.
"""

from __future__ import annotations

import re

from mmengine.hooks import Hook
from mmengine.model import BaseTTAModel, is_model_wrapper
from mmengine.runner import CheckpointLoader, Runner
from mmpretrain.models import BaseClassifier, VisionTransformer
from torch import nn

from ...models import MAEViT
from ...models.adapt import check_complete, check_fit, fit_encoder, stored_grid
from ...utils._compat.mmengine import built_loop, is_resuming, load_source
from ...utils._compat.torch import copy_metadata, run_load_hook_first
from ...weights.renaming import has_mmpretrain_names, renamed_for, with_mmpretrain_names
from ..resume.find import what_is_missing


class WeightsFitHook(Hook):
    """Refuses checkpoints of another architecture, where mmengine lists their keys and trains from
    random weights.

    Looks at every module with ``init_cfg=dict(type='Pretrained', …)``, and at what ``load_from``
    and resuming load. Lets mmpretrain's ``VisionTransformer`` take weights for another number of
    channels, or for a grid of patches that is not square, as :class:`MAEViT` does by itself.
    Renames weights of a foreign layout first.

    A classifier may start from an encoder alone. It is evaluated with all of its weights or not at
    all.
    """

    # Other hooks, such as that of moving averages, take the weights as they stand after this one.
    priority = 'VERY_HIGH'

    def before_run(self, runner: Runner) -> None:
        """Compares the pre-trained weights named in the config with the modules that load them."""
        # Evaluation builds no training loop, and loads none of these.
        trains = built_loop(runner, 'train') is not None
        for module in runner.model.modules():
            grid = None
            init_cfg = getattr(module, 'init_cfg', None)
            if trains and isinstance(init_cfg, dict) and init_cfg.get('type') == 'Pretrained':
                path, prefix = init_cfg['checkpoint'], init_cfg.get('prefix') or ''
                weights = CheckpointLoader.load_checkpoint(
                    path, map_location='cpu', logger='silent'
                )
                if has_mmpretrain_names(module):
                    weights = with_mmpretrain_names(weights)
                weights = _weights(weights)
                part = {
                    key.removeprefix(prefix): value
                    for key, value in weights.items()
                    if key.startswith(prefix)
                }
                check_fit(part or weights, module, path)
                grid = stored_grid(weights, prefix)
            if isinstance(module, VisionTransformer) and not isinstance(module, MAEViT):
                _fit_when_loaded(module, grid)

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Compares a whole checkpoint with the model."""
        model = runner.model
        if is_model_wrapper(model) or isinstance(model, BaseTTAModel):
            model = model.module
        source = load_source(runner) or 'the checkpoint'
        renamed = renamed_for(model, checkpoint)
        if renamed is not checkpoint:
            checkpoint['state_dict'] = renamed
        check_fit(_weights(checkpoint), model, source, exact=is_resuming(runner))
        if built_loop(runner, 'train') is None and isinstance(model, BaseClassifier):
            check_complete(_weights(checkpoint), model, source)
        if is_resuming(runner) and (fault := what_is_missing(checkpoint)):
            raise ValueError(
                f'{source} {fault}, so there is nothing to resume; start from its weights with '
                '--cfg-options '
                f'load_from={source}'
            )


def _fit_when_loaded(encoder: VisionTransformer, grid: tuple[int, int] | None) -> None:
    def fit(
        module: nn.Module, state_dict: dict, prefix: str, local_metadata: dict, *_: object
    ) -> None:
        fit_encoder(module, state_dict, prefix, local_metadata.get('grid') or grid)

    handle = encoder.register_load_state_dict_pre_hook(fit)
    # mmpretrain's own, which takes every grid for a square, comes after it and finds nothing left
    # to do.
    run_load_hook_first(encoder, handle)


def _weights(checkpoint: dict) -> dict:
    """The weights in a checkpoint, as mmengine takes them."""
    weights = checkpoint.get('state_dict', checkpoint)
    named = type(weights)((re.sub('^module.', '', key), value) for key, value in weights.items())
    copy_metadata(weights, named)
    return named
