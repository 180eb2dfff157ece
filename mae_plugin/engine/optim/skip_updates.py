"""Skips non-finite updates, without making the host wait for the device."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from ...utils._compat.torch import found_inf_tensors, skips_non_finite

# The mixin extends an optimizer wrapper, which the type checker is to know.
if TYPE_CHECKING:
    from mmengine.optim import AmpOptimWrapper as _Base
else:
    _Base = object


def total_norm(
    tensors: list[Tensor], norm_type: float = 2.0, foreach: bool | None = None
) -> Tensor:
    """Returns the norm of all tensors as one vector, on their device and over all shards."""
    norm = torch.nn.utils.get_total_norm(tensors, norm_type, foreach=foreach)
    return norm.full_tensor() if hasattr(norm, 'full_tensor') else norm


def is_finite(model: nn.Module) -> bool:
    """Returns whether all weights and buffers of a model are finite; waits for the device."""
    norms = []
    # One norm for weights and one for buffers, as a list must not mix shards and whole tensors.
    for values in (model.parameters(), model.buffers()):
        floats = [value.detach() for value in values if value.is_floating_point()]
        norms.append(total_norm(floats))
    return all(bool(norm.isfinite()) for norm in norms)


class SkipNonFiniteUpdates(_Base):
    """Makes an optimizer wrapper skip updates whose gradients are not finite.

    The norm of all gradients is computed on the device. Fused optimizers, and those under a loss
    scaler, take the decision as a tensor, so the host does not wait; for others it reads one number
    per update. A non-finite loss makes all gradients of its rank non-finite, and averaging over
    ranks spreads them. All ranks therefore skip together without further communication.

    Clipping (``clip_grad=dict(max_norm=...)``) uses the same norm.

    Attributes:
        grad_norm: norm of the last update's gradients before clipping, on the device.
    """

    grad_norm: Tensor | None = None

    # Counters on the device: updates skipped in a row and in total, and non-finite losses.
    _in_a_row: Tensor | float = 0.0
    _total: Tensor | float = 0.0
    _bad_losses: Tensor | float = 0.0

    def update_params(self, loss: Tensor, *args, **kwargs) -> None:
        """Runs the backward pass of a loss, and updates after the last accumulated step."""
        # 1 for a finite loss and NaN for any other, which makes all gradients NaN.
        factor = 1 + (loss.detach() - loss.detach())
        self._bad_losses = self._bad_losses + factor.isnan().float()
        super().update_params(loss * factor, *args, **kwargs)

    def step(self, **kwargs) -> None:
        """Updates the weights if all gradients are finite."""
        if self.loss_scaler.is_enabled():
            self.loss_scaler.unscale_(self.optimizer)
        self._measure_and_clip()
        assert self.grad_norm is not None
        # All counters stay on the device, so that nothing waits for it.
        bad = (~self.grad_norm.isfinite()).float()
        self._in_a_row = (self._in_a_row + bad) * bad
        self._total = self._total + bad
        if self.loss_scaler.is_enabled():
            # The scaler has checked this rank's gradients, and the decision of all ranks counts.
            for found in found_inf_tensors(self.loss_scaler, self.optimizer):
                found.copy_(bad)
            self.loss_scaler.step(self.optimizer, **kwargs)
            self.loss_scaler.update(self._scale_update_param)
        elif skips_non_finite(self.optimizer):
            # GradScaler passes the decision to fused optimizers in the same way.
            self.optimizer.grad_scale, self.optimizer.found_inf = None, bad
            self.optimizer.step(**kwargs)
            del self.optimizer.grad_scale, self.optimizer.found_inf
        elif not bad.item():
            self.optimizer.step(**kwargs)

    def _measure_and_clip(self) -> None:
        """Computes ``grad_norm``, and clips the gradients if ``clip_grad`` is set."""
        settings = dict(self.clip_grad_kwargs or {}) if self._clips_norm() else {}
        parameters = []
        for group in self.optimizer.param_groups:
            parameters += [p for p in group['params'] if p.grad is not None]
        gradients = [p.grad for p in parameters]
        self.grad_norm = total_norm(
            gradients, settings.get('norm_type', 2.0), settings.get('foreach')
        )
        if settings:
            torch.nn.utils.clip_grads_with_norm_(parameters, settings['max_norm'], self.grad_norm)
        elif self.clip_grad_kwargs:
            self._clip_grad()

    def _clips_norm(self) -> bool:
        """Returns whether ``clip_grad`` clips by norm, and not by value."""
        return bool(self.clip_grad_kwargs) and self.clip_func is torch.nn.utils.clip_grad_norm_

    def read_skipped(self) -> tuple[int, int, int]:
        """Reads the counters of skipped updates; waits for the device.

        Returns:
            Updates skipped in a row up to now, updates skipped in total, and non-finite losses of
            this rank since the last call.
        """
        in_a_row, total = int(self._in_a_row), int(self._total)
        bad_losses, self._bad_losses = int(self._bad_losses), 0.0
        return in_a_row, total, bad_losses

    def is_skipping(self) -> bool:
        """Returns whether the last update was skipped; waits for the device."""
        return bool(self._in_a_row)

    def state_dict(self) -> dict:
        """Returns mmengine's state dict with the number of updates skipped in a row."""
        return {**super().state_dict(), 'skipped_in_a_row': int(self._in_a_row)}

    def load_state_dict(self, state_dict: dict) -> None:
        """Loads a state dict; the number of skipped updates may be missing."""
        state_dict = dict(state_dict)
        self._in_a_row = float(state_dict.pop('skipped_in_a_row', 0))
        super().load_state_dict(state_dict)
