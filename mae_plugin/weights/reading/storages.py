"""The storages that a pickle of ``torch.save`` refers to."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from .tensors import STORAGES, Storage
from .values import Name

_BAD_STORAGE = 'a storage in it is not described as torch describes it'


class Storages:
    """The storages that a pickle refers to by persistent ids; each is read once.

    Args:
        content: returns the bytes of a storage by its key and length.
        limit: size of the file in bytes, which no storage can exceed.

    Attributes:
        itemsizes: bytes of an element, by key.
    """

    def __init__(self, content: Callable[[str, int], Tensor], limit: int) -> None:
        self.content = content
        self.limit = limit
        self.itemsizes: dict[str, int] = {}
        self._storages: dict[str, Storage] = {}

    def load(self, identity: Any) -> Storage:
        """Returns the storage of a persistent id.

        Args:
            identity: ``('storage', type, key, location, number of elements)``, and None in some
                versions.
        """
        is_tuple = type(identity) is tuple and len(identity) in (5, 6)
        if not is_tuple or identity[5:] not in ((), (None,)):
            raise ValueError(_BAD_STORAGE)
        kind, dtype, key, location, elements = identity[:5]
        if not (
            type(kind) is type(key) is type(location) is str
            and kind == 'storage'
            and type(elements) is int
        ):
            raise ValueError(_BAD_STORAGE)
        if type(dtype) is not Name or dtype.path not in STORAGES:
            raise ValueError(_BAD_STORAGE)
        dtype = STORAGES[dtype.path]
        length = elements * dtype.itemsize
        if not 0 <= length <= self.limit:
            raise ValueError('a storage in it is longer than the file')
        if key not in self._storages:
            content = self.content(key, length)
            if dtype is torch.bool and content.device.type != 'meta':
                # torch and numpy need bools of bytes 0 and 1.
                content.clamp_(max=1)
            self.itemsizes[key] = dtype.itemsize
            self._storages[key] = Storage(content, dtype, self.limit)
        storage = self._storages[key]
        if storage.dtype != dtype or storage.content.numel() != length:
            raise ValueError('a storage in it is of two types')
        return storage
