"""Functions and classes for use from Python."""

from ..analysis import (
    FeatureInferencer,
    Reconstruction,
    ReconstructionInferencer,
    draw_curves,
    draw_grid,
    draw_tokens,
    find_images,
    read_log,
    reconstruct_image,
    save_features,
    save_figure,
)

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
