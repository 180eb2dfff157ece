"""Checks before training that the weights match the model, and adapts other image sizes."""

from __future__ import annotations

import re
from collections import OrderedDict
from collections.abc import Mapping

from mmengine.hooks import Hook
from mmengine.runner import CheckpointLoader, Runner
from mmpretrain.models import BaseClassifier, VisionTransformer
from torch import nn

from ...models import MAEViT
from ...models.adapt import adapt_on_load, wanted_by_encoder
from ...models.check_weights import check_complete, check_weights, mark_checked
from ...models.grids import Grid, stored_grid
from ...utils._compat.mmengine import built_loop, is_resuming, load_source
from ...utils._compat.torch import copy_metadata, run_load_hook_first
from ...weights.foreign import (
    has_mmpretrain_names,
    renamed_for,
    unwrap,
    with_mmpretrain_names,
)
from ..resume.find import find_fault


class WeightsFitHook(Hook):
    """Refuses weights of another architecture, and adapts weights of other sizes.

    mmengine logs the keys that do not match and trains from random weights. This hook raises an
    error instead, for each module with ``init_cfg=dict(type='Pretrained', ...)`` and for the
    checkpoint that a Runner loads or resumes. Weights of a foreign layout are renamed first.

    mmpretrain's ``VisionTransformer`` then takes weights for another number of channels, or for a
    grid of patches that is not square, as :class:`MAEViT` does without a hook.

    A classifier may be trained from an encoder alone, but is evaluated only with all of its
    weights.
    """

    # Other hooks, such as that of moving averages, need the weights under their final names.
    priority = 'VERY_HIGH'

    def before_run(self, runner: Runner) -> None:
        """Checks the weights that ``init_cfg`` names against the modules that load them."""
        # Evaluation builds no training loop, and does not load them.
        trains = built_loop(runner, 'train') is not None
        for module in runner.model.modules():
            grid = None
            init_cfg = getattr(module, 'init_cfg', None)
            if trains and isinstance(init_cfg, dict) and init_cfg.get('type') == 'Pretrained':
                grid = _check_pretrained(module, init_cfg)
            if isinstance(module, VisionTransformer) and not isinstance(module, MAEViT):
                _adapt_when_loaded(module, grid)

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Checks a checkpoint against the model before the Runner loads it.

        Raises:
            ValueError: for weights of another architecture, for a classifier without its head in
                evaluation, or for resuming from weights alone.
        """
        model = unwrap(runner.model)
        source = load_source(runner) or 'the checkpoint'
        weights = _weights_of(renamed_for(model, checkpoint))
        check_weights(weights, model, source, exact=is_resuming(runner))
        if built_loop(runner, 'train') is None and isinstance(model, BaseClassifier):
            check_complete(weights, model, source)
        if is_resuming(runner) and (problem := find_fault(checkpoint)):
            raise ValueError(
                f'{source} {problem}, so there is nothing to resume; to start from its weights, do '
                f'not resume and set load_from={source}'
            )
        # The model's own check of the same weights is skipped.
        mark_checked(weights, model)
        checkpoint['state_dict'] = weights


def _check_pretrained(module: nn.Module, init_cfg: dict) -> Grid | None:
    """Checks the weights that an ``init_cfg`` names; returns the grid of patches noted with them.

    mmengine loses the notes when it selects the weights under a prefix.
    """
    path, prefix = init_cfg['checkpoint'], init_cfg.get('prefix') or ''
    checkpoint = CheckpointLoader.load_checkpoint(path, map_location='cpu', logger='silent')
    if has_mmpretrain_names(module):
        checkpoint = with_mmpretrain_names(checkpoint)
    weights = _weights_of(checkpoint)
    part = {}
    for key, value in weights.items():
        if key.startswith(prefix):
            part[key.removeprefix(prefix)] = value
    check_weights(part or weights, module, path)
    return stored_grid(weights, prefix)


def _adapt_when_loaded(encoder: VisionTransformer, grid: Grid | None) -> None:
    """Adapts weights to an encoder of mmpretrain whenever it loads some."""

    def adapt(
        module: nn.Module, state_dict: dict, prefix: str, local_metadata: dict, *_: object
    ) -> None:
        adapt_on_load(state_dict, wanted_by_encoder(module, prefix), local_metadata, grid)

    handle = encoder.register_load_state_dict_pre_hook(adapt)
    # mmpretrain's own hook assumes that every grid is square. Run after this one, it finds a
    # position embedding of the right size.
    run_load_hook_first(encoder, handle)


def _weights_of(checkpoint: Mapping) -> OrderedDict:
    """Returns the weights in a checkpoint under the names by which mmengine loads them."""
    weights = checkpoint.get('state_dict', checkpoint)
    named = OrderedDict((re.sub('^module.', '', key), value) for key, value in weights.items())
    copy_metadata(weights, named)
    return named
