"""Weights that are not the model's end a run before it begins."""

from __future__ import annotations

import re

from mmengine.hooks import Hook
from mmengine.model import BaseTTAModel, is_model_wrapper
from mmengine.runner import BaseLoop, CheckpointLoader, Runner

from ..models.fit import check_fit


class WeightsFitHook(Hook):
    """Refuses checkpoints of another architecture, where mmengine lists their keys and trains from random weights.

    Looks at every module with ``init_cfg=dict(type='Pretrained', …)``, and at what ``load_from`` and resuming load.
    """

    def before_run(self, runner: Runner) -> None:
        """Compares the pre-trained weights named in the config with the modules that load them."""
        if not isinstance(runner._train_loop, BaseLoop):
            # Evaluation builds no training loop, and loads none of these.
            return
        for module in runner.model.modules():
            init_cfg = getattr(module, 'init_cfg', None)
            if isinstance(init_cfg, dict) and init_cfg.get('type') == 'Pretrained':
                path, prefix = init_cfg['checkpoint'], init_cfg.get('prefix') or ''
                weights = _weights(CheckpointLoader.load_checkpoint(path, map_location='cpu', logger='silent'))
                part = {key.removeprefix(prefix): value for key, value in weights.items() if key.startswith(prefix)}
                check_fit(part or weights, module, path)

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Compares a whole checkpoint with the model."""
        model = runner.model
        if is_model_wrapper(model) or isinstance(model, BaseTTAModel):
            model = model.module
        check_fit(_weights(checkpoint), model, runner._load_from or 'the checkpoint')


def _weights(checkpoint: dict) -> dict:
    """The weights in a checkpoint, as mmengine takes them."""
    return {re.sub('^module.', '', key): value for key, value in checkpoint.get('state_dict', checkpoint).items()}
