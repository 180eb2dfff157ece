"""Mixed precision chosen by device, so that one config runs on every machine."""

from __future__ import annotations

from contextlib import AbstractContextManager

import torch
from mmengine.logging import print_log
from mmengine.optim import AmpOptimWrapper, OptimWrapper
from torch import nn

from ..parallel import save_whole_tensors
from .data_share import WeightLossByData
from .skip_updates import SkipNonFiniteUpdates


class AutoAmpOptimWrapper(WeightLossByData, SkipNonFiniteUpdates, AmpOptimWrapper):
    """Extends ``AmpOptimWrapper`` by choosing the precision of the device.

    The precision is bfloat16 without a loss scaler on GPUs that support it, float16 with a dynamic
    loss scaler on older GPUs, and float32 without a GPU. The log states which. A checkpoint resumes
    in any precision. Non-finite updates are skipped (:class:`SkipNonFiniteUpdates`). Gradients of
    images with pixels without data do not depend on the number of ranks and accumulated steps
    (:class:`WeightLossByData`).

    Args:
        **kwargs: arguments of mmengine's ``OptimWrapper``.
    """

    def __init__(self, **kwargs) -> None:
        if not torch.cuda.is_available():
            # The constructor of AmpOptimWrapper raises an error without a GPU.
            OptimWrapper.__init__(self, **kwargs)
            self.cast_dtype = None
            self.loss_scaler = torch.amp.GradScaler('cpu', enabled=False)
            self._scale_update_param = None
            precision = 'float32, as there is no GPU'
        elif torch.cuda.is_bf16_supported(including_emulation=False):
            super().__init__(dtype='bfloat16', loss_scale=dict(enabled=False), **kwargs)
            precision = 'bfloat16 mixed precision'
        else:
            super().__init__(dtype='float16', loss_scale='dynamic', **kwargs)
            precision = 'float16 mixed precision with a loss scaler, as this GPU has no bfloat16'
        save_whole_tensors(self.optimizer)
        print_log(f'Training in {precision}.', logger='current')

    def optim_context(self, model: nn.Module) -> AbstractContextManager:
        """Returns the context of the forward pass, which has no autocast in float32."""
        self.watch(model)
        if self.cast_dtype is None:
            return OptimWrapper.optim_context(self, model)
        return super().optim_context(model)

    def load_state_dict(self, state_dict: dict) -> None:
        """Loads optimizer and loss scaler; the scaler's state is dropped where it is not used."""
        state_dict = dict(state_dict)
        scaler = state_dict.pop('loss_scaler', None)
        # A run may resume on a device with another precision.
        if scaler and self.loss_scaler.is_enabled():
            state_dict['loss_scaler'] = scaler
        super().load_state_dict(state_dict)
