"""Pixels in, loss or features out."""

from .data_preprocessor import BandDataPreprocessor
from .mae import MAE
from .mae_decoder import MAEPretrainDecoder
from .mae_head import MAEPretrainHead
from .mae_vit import MAEViT

__all__ = ['MAE', 'BandDataPreprocessor', 'MAEPretrainDecoder', 'MAEPretrainHead', 'MAEViT']
