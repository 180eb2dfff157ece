"""Merges parameter groups, so that an optimizer updates many tensors at once."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mmengine.optim import DefaultOptimWrapperConstructor
from mmpretrain.engine.optimizers import LearningRateDecayOptimWrapperConstructor
from torch import nn

# The mixin extends a constructor, which the type checker is to know.
if TYPE_CHECKING:
    from mmengine.optim import DefaultOptimWrapperConstructor as _Base
else:
    _Base = object


class _MergesGroups(_Base):
    """Merges the parameter groups of mmengine's constructors, which hold one tensor each."""

    def add_params(self, params: list[dict], module: nn.Module, prefix: str = '', **kwargs) -> None:
        """Adds the parameter groups of a module, merged by their settings."""
        super().add_params(params, module, prefix=prefix, **kwargs)
        # The constructors call this method recursively, and the outermost call ends last.
        if prefix == '':
            params[:] = self._merged(params)

    def _merged(self, groups: list[dict]) -> list[dict]:
        """Returns one group per distinct setting, in the order of their first tensors."""
        merged: dict[str, dict] = {}
        for group in groups:
            # mmengine leaves out, or sets to None, what equals the base values.
            settings = dict(lr=self.base_lr, weight_decay=self.base_wd)
            for key, value in group.items():
                if key not in ('params', 'param_name'):
                    settings[key] = value
            settings = {key: value for key, value in settings.items() if value is not None}
            entry = merged.setdefault(repr(sorted(settings.items())), dict(settings, params=[]))
            entry['params'] += group['params']
        return list(merged.values())


class MergedOptimWrapperConstructor(_MergesGroups, DefaultOptimWrapperConstructor):
    """Extends mmengine's constructor: one parameter group per distinct setting, not per tensor.

    MAE's pre-training has 2 groups instead of 252 (ViT-B), 396 (L) or 492 (H). Arguments and
    resulting weights are those of ``DefaultOptimWrapperConstructor``.
    """


class MergedLayerDecayConstructor(_MergesGroups, LearningRateDecayOptimWrapperConstructor):
    """Extends mmpretrain's layer-wise decay: one group per layer and weight decay, not per tensor.

    Arguments are those of ``LearningRateDecayOptimWrapperConstructor``.
    """
