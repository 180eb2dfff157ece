"""What the training loop needs beyond mmengine: precision by device, the official schedule, a time limit."""

from .auto_amp import AutoAmpOptimWrapper
from .schedule import WarmupCosineLR
from .time_limit import TimeLimitHook

__all__ = ['AutoAmpOptimWrapper', 'TimeLimitHook', 'WarmupCosineLR']
