"""Files that hold weights: what may be loaded from them, and under which names."""

from .layouts import detect, from_mmpretrain, to_mmpretrain
from .loading import register_loaders, trust_checkpoints
from .reading.torch_files import check_whole
from .renaming import register_renaming

__all__ = [
    'check_whole',
    'detect',
    'from_mmpretrain',
    'register_loaders',
    'register_renaming',
    'to_mmpretrain',
    'trust_checkpoints',
]
