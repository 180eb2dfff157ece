"""Files that hold weights: what may be loaded from them."""

from .safe_types import allow_runner_types

__all__ = ['allow_runner_types']
