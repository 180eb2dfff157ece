"""Files in, uint8 batches out: decoding, the crops of training and evaluation, sources of
images.
"""

from .crop import LoadCenterCrop, LoadRandomCrop
from .indexed_images import IndexedImages

__all__ = ['IndexedImages', 'LoadCenterCrop', 'LoadRandomCrop']
