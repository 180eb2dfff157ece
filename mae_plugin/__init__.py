"""Masked Autoencoders for the OpenMMLab / mmpretrain ecosystem.

Importing the package registers its parts with mmpretrain (see :mod:`mae_plugin.registry`) and makes
mmengine load checkpoints safely, its own included (see :mod:`mae_plugin.weights`).
"""

from .utils.home import provide_user
from .utils.openmmlab import import_openmmlab

# torch and mmengine read the user name and the home folder when they are imported.
provide_user()
import_openmmlab()

from .analysis import Reconstruction, ReconstructionInferencer, reconstruct_image
from .apis.hub import accept_paths
from .models import MAE, MAEPretrainDecoder, MAEPretrainHead, MAEViT
from .registry import register_all
from .weights import register_foreign_layouts, register_loaders

__version__ = '0.2.0'
__all__ = [
    'MAE',
    'MAEPretrainDecoder',
    'MAEPretrainHead',
    'MAEViT',
    'Reconstruction',
    'ReconstructionInferencer',
    '__version__',
    'reconstruct_image',
]

register_loaders()
register_foreign_layouts()
register_all()
accept_paths()
