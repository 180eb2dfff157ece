"""Averages gradients over all patches with data of an update, for images with missing pixels."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mmengine.dist import all_reduce
from torch import Tensor, nn

# The mixin extends an optimizer wrapper, which the type checker is to know.
if TYPE_CHECKING:
    from mmengine.optim import OptimWrapper as _Base
else:
    _Base = object

from ...weights.foreign import unwrap


class WeightLossByData(_Base):
    """Makes an optimizer wrapper average over the patches of an update across ranks and steps.

    A rank's loss is the mean over its own patches with data. The mean of these means differs from
    the mean over all patches when one rank, or one of several accumulated steps, has fewer of them.
    Each loss is therefore multiplied by the share of its patches that have data (``data_share`` of
    the model), and the summed gradients are divided by the mean share.

    Models without ``data_share``, or with None in it, train as before and without communication.
    """

    _watched: nn.Module | None = None
    _mean_share: Tensor | None = None

    def watch(self, model: nn.Module) -> None:
        """Stores the model whose ``data_share`` weights the next loss."""
        self._watched = unwrap(model)

    def update_params(self, loss: Tensor, *args, **kwargs) -> None:
        """Runs the backward pass of the weighted loss, and updates after the last step."""
        share = getattr(self._watched, 'data_share', None)
        if share is not None:
            # Divided by the number of accumulated steps, as the loss is too.
            scaled = self.scale_loss(share)
            self._mean_share = scaled if self._mean_share is None else self._mean_share + scaled
            loss = loss * share
        super().update_params(loss, *args, **kwargs)

    def step(self, **kwargs) -> None:
        """Divides the gradients by the mean share, and updates the parameters."""
        if self._mean_share is not None:
            all_reduce(self._mean_share, 'mean')
            # If no patch has data, all gradients are zero and stay zero.
            factor = 1 / self._mean_share.clamp(min=1e-12)
            for group in self.optimizer.param_groups:
                for parameter in group['params']:
                    if parameter.grad is not None:
                        parameter.grad.mul_(factor.to(parameter.grad.dtype))
            self._mean_share = None
        super().step(**kwargs)
