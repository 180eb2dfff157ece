"""Compiles the training step with torch.compile where this is faster."""

from __future__ import annotations

import torch
from mmengine.hooks import Hook
from mmengine.logging import print_log
from mmengine.runner import Runner

from ...models import MAE
from ...weights.foreign import unwrap
from ..parallel import compiles_step


class CompileHook(Hook):
    """Compiles MAE's step before training; other models, and sharded ones, are not compiled.

    Args:
        enabled: whether to compile. None compiles if there is a GPU. On a CPU the first step of a
            ViT-B would take a minute and a half, for little gain.
        **options: arguments of ``torch.compile``, such as ``mode='max-autotune'``.
    """

    def __init__(self, enabled: bool | None = None, **options) -> None:
        self.enabled = enabled
        self.options = options

    def before_train(self, runner: Runner) -> None:
        """Compiles the model in place; its weights keep their names."""
        model = unwrap(runner.model)
        enabled = torch.cuda.is_available() if self.enabled is None else self.enabled
        if not (enabled and isinstance(model, MAE) and compiles_step(runner.model)):
            return
        if reason := model.why_all_patches():
            print_log(f'The step is not compiled: {reason}.', logger='current')
        else:
            model.compile(**self.options)
            print_log(
                'The step is compiled by torch.compile; the first one takes longer.',
                logger='current',
            )
