"""What the training loop needs beyond mmengine: precision by device, the official schedule, exact resuming, speed."""

from .auto_amp import AutoAmpOptimWrapper
from .checkpoint_hook import SafeCheckpointHook
from .compile_hook import CompileHook
from .fit_hook import WeightsFitHook
from .merged_groups import MergedLayerDecayConstructor, MergedOptimWrapperConstructor
from .probe_loop import ProbeLoop
from .reconstruction_hook import ReconstructionHook
from .resumable import ResumableEpochLoop, ResumableIterLoop
from .runtime_info import LeanRuntimeInfoHook
from .schedule import WarmupCosineLR
from .time_limit import TimeLimitHook

__all__ = [
    'AutoAmpOptimWrapper',
    'CompileHook',
    'LeanRuntimeInfoHook',
    'MergedLayerDecayConstructor',
    'MergedOptimWrapperConstructor',
    'ProbeLoop',
    'ReconstructionHook',
    'ResumableEpochLoop',
    'ResumableIterLoop',
    'SafeCheckpointHook',
    'TimeLimitHook',
    'WarmupCosineLR',
    'WeightsFitHook',
]
