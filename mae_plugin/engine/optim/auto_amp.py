"""Mixed precision where the device has it, so that one config starts on every machine."""

from __future__ import annotations

from contextlib import AbstractContextManager

import torch
from mmengine.logging import print_log
from mmengine.optim import AmpOptimWrapper, OptimWrapper
from torch import nn

from ..parallel import save_whole_tensors
from .data_share import WeightsByData
from .skip_updates import SkipsBadUpdates


class AutoAmpOptimWrapper(WeightsByData, SkipsBadUpdates, AmpOptimWrapper):
    """``AmpOptimWrapper`` that picks its precision from the device.

    bfloat16 without a loss scaler where the GPU computes in it, float16 with a dynamic one on older
    GPUs, plain float32 without a GPU. One log line says which. A checkpoint written with one of
    them resumes with any other. Updates that are not finite are skipped in all of them
    (:class:`SkipsBadUpdates`). Images with pixels without data weigh the same on however many ranks
    and steps an update is spread (:class:`WeightsByData`).

    Args:
        **kwargs: arguments of mmengine's ``OptimWrapper``.
    """

    def __init__(self, **kwargs) -> None:
        if not torch.cuda.is_available():
            # AmpOptimWrapper itself refuses to be built without a GPU.
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
        """The context of the forward pass: autocast, or nothing in float32."""
        self.watch(model)
        if self.cast_dtype is None:
            return OptimWrapper.optim_context(self, model)
        return super().optim_context(model)

    def load_state_dict(self, state_dict: dict) -> None:
        """Loads optimiser and scaler; a scaler state that this precision has no use for, or lacks,
        is passed over.
        """
        state_dict = dict(state_dict)
        scaler = state_dict.pop('loss_scaler', None)
        if scaler and self.loss_scaler.is_enabled():
            state_dict['loss_scaler'] = scaler
        super().load_state_dict(state_dict)
