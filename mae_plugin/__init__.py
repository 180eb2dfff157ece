"""Masked Autoencoders for the OpenMMLab / mmpretrain ecosystem.

Importing the package registers its parts with mmpretrain (see :mod:`mae_plugin.registry`) and makes
mmengine load checkpoints safely, its own included (see :mod:`mae_plugin.weights`).
"""

import warnings

from .utils.home import provide_user

# Before the libraries that look for it.
provide_user()
# mmcv-lite says at every start that it lacks an operator for detectors, which nothing here uses.
warnings.filterwarnings('ignore', message='Fail to import ``MultiScaleDeformableAttention``')

from .analysis import Reconstruction, ReconstructionInferencer, reconstruct_image
from .apis.hub import accept_paths
from .models import MAE, MAEPretrainDecoder, MAEPretrainHead, MAEViT
from .registry import register_all
from .weights import register_loaders, register_renaming

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
register_renaming()
register_all()
accept_paths()
