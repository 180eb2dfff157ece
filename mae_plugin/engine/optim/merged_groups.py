"""Few parameter groups, so that an optimiser works on many tensors at once."""

from __future__ import annotations

from mmengine.optim import DefaultOptimWrapperConstructor
from mmpretrain.engine.optimizers import LearningRateDecayOptimWrapperConstructor
from torch import nn


class _MergesGroups:
    """Merges the groups of one tensor each that mmengine's constructors make."""

    def add_params(self, params: list[dict], module: nn.Module, prefix: str = '', **kwargs) -> None:
        super().add_params(params, module, prefix=prefix, **kwargs)
        # The constructors call this for every module within the model; the outermost call is done
        # last.
        if prefix == '':
            params[:] = self._merged(params)

    def _merged(self, groups: list[dict]) -> list[dict]:
        merged: dict[str, dict] = {}
        for group in groups:
            defaults = dict(lr=self.base_lr, weight_decay=self.base_wd)
            own = {
                key: value for key, value in group.items() if key not in ('params', 'param_name')
            }
            settings = {
                key: value for key, value in {**defaults, **own}.items() if value is not None
            }
            entry = merged.setdefault(repr(sorted(settings.items())), dict(settings, params=[]))
            entry['params'] += group['params']
        return list(merged.values())


class MergedOptimWrapperConstructor(_MergesGroups, DefaultOptimWrapperConstructor):
    """mmengine's constructor with one parameter group per distinct setting instead of one per
    tensor.

    MAE's pre-training has 2 instead of 252 (ViT-B), 396 (L) or 492 (H). Arguments are those of
    ``DefaultOptimWrapperConstructor``; weights come out as with it.
    """


class MergedLayerDecayConstructor(_MergesGroups, LearningRateDecayOptimWrapperConstructor):
    """mmpretrain's layer-wise decay with one group per layer and weight decay instead of one per
    tensor.

    Arguments are those of ``LearningRateDecayOptimWrapperConstructor``.
    """
