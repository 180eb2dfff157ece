"""Training loops, hooks, optimizer wrappers, schedules and a model wrapper for mmengine's Runner.

The names in ``__all__`` are registered by ``mae_plugin/registry.py``, each by its base class.
"""

from .hooks.adapt_weights import WeightsFitHook
from .hooks.check_data import DataFitHook
from .hooks.checkpoint import SafeCheckpointHook
from .hooks.compile import CompileHook
from .hooks.nan_guard import NaNGuardHook
from .hooks.preemption import PreemptionHook
from .hooks.reconstruction import ReconstructionHook
from .hooks.run_lock import RunLockHook
from .hooks.runtime_info import LeanRuntimeInfoHook, LenientLoggerHook
from .hooks.time_limit import TimeLimitHook
from .loops.probe import ProbeLoop
from .loops.train import ResumableEpochLoop, ResumableIterLoop
from .optim.auto_amp import AutoAmpOptimWrapper
from .optim.merged_groups import MergedLayerDecayConstructor, MergedOptimWrapperConstructor
from .optim.schedule import WarmupCosineLR
from .parallel import FullyShardedModel

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
