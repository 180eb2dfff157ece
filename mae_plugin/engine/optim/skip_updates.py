"""Updates that are not finite are skipped, without waiting for the device to say so."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ...utils._compat.torch import found_inf_tensors, skips_non_finite


def total_norm(
    tensors: list[Tensor], norm_type: float = 2.0, foreach: bool | None = None
) -> Tensor:
    """The norm of all tensors as one vector, on their device; sharded ones are summed over all
    ranks.
    """
    norm = torch.nn.utils.get_total_norm(tensors, norm_type, foreach=foreach)
    return norm.full_tensor() if hasattr(norm, 'full_tensor') else norm


def is_finite(model: nn.Module) -> bool:
    """Whether every weight and buffer of a model is a finite number; waits for the device."""
    norms = [
        total_norm([value.detach() for value in values if value.is_floating_point()])
        for values in (model.parameters(), model.buffers())
    ]
    return all(bool(norm.isfinite()) for norm in norms)


class SkipsBadUpdates:
    """What keeps an optimiser wrapper from updating weights with anything that is not finite.

    The norm of all gradients is computed on the device, where it decides whether the optimiser
    changes anything: fused ones (and those under a loss scaler) are told by a tensor, so the host
    need not wait. For others it reads one number a step. A loss that is not finite makes every
    gradient of its rank so, and averaging over ranks carries that to all of them: they skip
    together, with no message of their own.

    Clipping (``clip_grad=dict(max_norm=...)``) uses the same norm.
    """

    grad_norm: Tensor | None = None
    """Norm of the last update's gradients before clipping, on the device."""

    _in_a_row: Tensor | float = 0.0
    _in_all: Tensor | float = 0.0
    _bad_losses: Tensor | float = 0.0

    def update_params(self, loss: Tensor, *args, **kwargs) -> None:
        """One step, from a loss to weights."""
        # One, or NaN for a loss that is NaN or infinite.
        factor = 1 + (loss.detach() - loss.detach())
        self._bad_losses = self._bad_losses + factor.isnan().float()
        super().update_params(loss * factor, *args, **kwargs)

    def step(self, **kwargs) -> None:
        """Updates the weights if all gradients are finite."""
        if self.loss_scaler.is_enabled():
            self.loss_scaler.unscale_(self.optimizer)
        settings = dict(self.clip_grad_kwargs or {}) if self._clips_norm() else {}
        parameters = [
            p
            for group in self.optimizer.param_groups
            for p in group['params']
            if p.grad is not None
        ]
        gradients = [p.grad for p in parameters]
        self.grad_norm = total_norm(
            gradients, settings.get('norm_type', 2.0), settings.get('foreach')
        )
        if settings:
            torch.nn.utils.clip_grads_with_norm_(parameters, settings['max_norm'], self.grad_norm)
        elif self.clip_grad_kwargs:
            self._clip_grad()

        bad = (~self.grad_norm.isfinite()).float()
        self._in_a_row = (self._in_a_row + bad) * bad
        self._in_all = self._in_all + bad
        if self.loss_scaler.is_enabled():
            # The scaler has looked at this rank's gradients; what one rank of several found holds
            # for all.
            for found in found_inf_tensors(self.loss_scaler, self.optimizer):
                found.copy_(bad)
            self.loss_scaler.step(self.optimizer, **kwargs)
            self.loss_scaler.update(self._scale_update_param)
        elif skips_non_finite(self.optimizer):
            # What GradScaler itself tells fused optimisers.
            self.optimizer.grad_scale, self.optimizer.found_inf = None, bad
            self.optimizer.step(**kwargs)
            del self.optimizer.grad_scale, self.optimizer.found_inf
        elif not bad.item():
            self.optimizer.step(**kwargs)

    def _clips_norm(self) -> bool:
        return bool(self.clip_grad_kwargs) and self.clip_func is torch.nn.utils.clip_grad_norm_

    def read_skipped(self) -> tuple[int, int, int]:
        """Updates skipped in a row up to now and in all, and losses of this rank since the last
        call that were not finite; waits for the device.
        """
        counts = tuple(int(count) for count in (self._in_a_row, self._in_all, self._bad_losses))
        self._bad_losses = 0.0
        return counts

    def is_skipping(self) -> bool:
        """Whether the last update was skipped; waits for the device."""
        return bool(self._in_a_row)

    def state_dict(self) -> dict:
        """That of mmengine, with the number of updates skipped in a row."""
        return {**super().state_dict(), 'skipped_in_a_row': int(self._in_a_row)}

    def load_state_dict(self, state_dict: dict) -> None:
        """That of mmengine; a checkpoint without the number has skipped none."""
        state_dict = dict(state_dict)
        self._in_a_row = float(state_dict.pop('skipped_in_a_row', 0))
        super().load_state_dict(state_dict)
