"""Files in, uint8 batches out: decoding, the crops of training and evaluation, sources of images."""

from .crop import LoadCenterCrop, LoadRandomCrop
from .images import IndexedImages

__all__ = ['IndexedImages', 'LoadCenterCrop', 'LoadRandomCrop']
