"""What the training loop needs beyond mmengine: precision by device, the official schedule, exact resuming, speed."""

from .auto_amp import AutoAmpOptimWrapper
from .checkpoint_hook import SafeCheckpointHook
from .compile_hook import CompileHook
from .data_fit_hook import DataFitHook
from .fit_hook import WeightsFitHook
from .merged_groups import MergedLayerDecayConstructor, MergedOptimWrapperConstructor
from .nan_guard import NaNGuardHook
from .preemption import PreemptionHook
from .probe_loop import ProbeLoop
from .reconstruction_hook import ReconstructionHook
from .resumable import ResumableEpochLoop, ResumableIterLoop
from .run_lock import RunLockHook
from .runtime_info import LeanRuntimeInfoHook, LenientLoggerHook
from .schedule import WarmupCosineLR
from .sharded import FullyShardedModel
from .time_limit import TimeLimitHook

__all__ = [
    'AutoAmpOptimWrapper',
    'CompileHook',
    'DataFitHook',
    'FullyShardedModel',
    'LeanRuntimeInfoHook',
    'LenientLoggerHook',
    'MergedLayerDecayConstructor',
    'MergedOptimWrapperConstructor',
    'NaNGuardHook',
    'PreemptionHook',
    'ProbeLoop',
    'ReconstructionHook',
    'ResumableEpochLoop',
    'ResumableIterLoop',
    'RunLockHook',
    'SafeCheckpointHook',
    'TimeLimitHook',
    'WarmupCosineLR',
    'WeightsFitHook',
]
