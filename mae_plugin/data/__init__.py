"""Image files to uint8 batches: decoding, crops for training and evaluation, sources of images."""

from .crop import LoadCenterCrop, LoadRandomCrop
from .indexed_images import IndexedImages

__all__ = ['IndexedImages', 'LoadCenterCrop', 'LoadRandomCrop']
