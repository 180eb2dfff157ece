"""What the training loop needs beyond mmengine: precision by device, the official schedule, exact resuming."""

from .auto_amp import AutoAmpOptimWrapper
from .checkpoint_hook import SafeCheckpointHook
from .fit_hook import WeightsFitHook
from .resumable import ResumableEpochLoop, ResumableIterLoop
from .schedule import WarmupCosineLR
from .time_limit import TimeLimitHook

__all__ = [
    'AutoAmpOptimWrapper',
    'ResumableEpochLoop',
    'ResumableIterLoop',
    'SafeCheckpointHook',
    'TimeLimitHook',
    'WarmupCosineLR',
    'WeightsFitHook',
]
