"""Files that hold weights: what may be loaded from them."""

from .loading import register_loaders, trust_checkpoints
from .safe_types import allow_runner_types

__all__ = ['allow_runner_types', 'register_loaders', 'trust_checkpoints']
