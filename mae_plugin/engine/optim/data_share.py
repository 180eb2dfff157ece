"""Gradients of images with pixels without data, averaged over all patches that count in an
update.
"""

from __future__ import annotations

from mmengine.dist import all_reduce
from mmengine.model import is_model_wrapper
from torch import Tensor, nn


class WeightsByData:
    """Makes an optimizer wrapper average over the patches of an update, however they are spread
    over ranks and steps.

    A rank's loss is the mean over its own patches with data. The mean of such means is not the mean
    over all patches when one rank, or one of several accumulated steps, has fewer of them. Each
    loss is therefore multiplied by the share of patches that count in it (``data_share`` of the
    model), and the summed gradients are divided by the mean share.

    Models without ``data_share``, or with None in it, train as before, and nothing is sent between
    ranks for them.
    """

    _watched: nn.Module | None = None
    _mean_share: Tensor | None = None

    def watch(self, model: nn.Module) -> None:
        """Notes the model whose ``data_share`` weights the next loss."""
        self._watched = model.module if is_model_wrapper(model) else model

    def update_params(self, loss: Tensor, *args, **kwargs) -> None:
        """Runs the backward pass of one step, weighted, and updates the parameters when an update
        is complete.
        """
        share = getattr(self._watched, 'data_share', None)
        if share is not None:
            # Divided by the number of accumulated steps, as the loss will be.
            scaled = self.scale_loss(share)
            self._mean_share = scaled if self._mean_share is None else self._mean_share + scaled
            loss = loss * share
        super().update_params(loss, *args, **kwargs)

    def step(self, **kwargs) -> None:
        """Updates the parameters."""
        if self._mean_share is not None:
            all_reduce(self._mean_share, 'mean')
            # Without a patch that counts, all gradients are zero.
            factor = 1 / self._mean_share.clamp(min=1e-12)
            for group in self.optimizer.param_groups:
                for parameter in group['params']:
                    if parameter.grad is not None:
                        parameter.grad.mul_(factor.to(parameter.grad.dtype))
            self._mean_share = None
        super().step(**kwargs)
