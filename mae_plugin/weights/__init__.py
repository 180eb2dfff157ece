"""Weights: safe reading of files, layouts and their names, conversion and export."""

from .foreign import register_foreign_layouts
from .layouts import detect
from .loading import register_loaders, trust_checkpoints
from .reading.torch_files import check_whole
from .renaming import from_mmpretrain, to_mmpretrain

__all__ = [
    'check_whole',
    'detect',
    'from_mmpretrain',
    'register_foreign_layouts',
    'register_loaders',
    'to_mmpretrain',
    'trust_checkpoints',
]
