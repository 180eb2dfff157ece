"""Files that hold weights: what may be loaded from them, and under which names."""

from .layouts import detect, from_mmpretrain, to_mmpretrain
from .loading import register_loaders, trust_checkpoints
from .safe_types import allow_runner_types

__all__ = [
    'allow_runner_types',
    'detect',
    'from_mmpretrain',
    'register_loaders',
    'to_mmpretrain',
    'trust_checkpoints',
]
