"""Analysis of models: reconstructions, features, probes, figures and logs."""

from .features import FeatureInferencer, save_features
from .figures import draw_curves, draw_grid, draw_tokens, save_figure
from .images import find_images
from .logs import read_log
from .reconstruct import Reconstruction
from .reconstruction_inferencer import ReconstructionInferencer, reconstruct_image

__all__ = [
    'FeatureInferencer',
    'Reconstruction',
    'ReconstructionInferencer',
    'draw_curves',
    'draw_grid',
    'draw_tokens',
    'find_images',
    'read_log',
    'reconstruct_image',
    'save_features',
    'save_figure',
]
