"""The format of ``torch.save`` before torch 1.6, which has no checksums."""

from __future__ import annotations

import os
import struct
from io import BufferedReader
from typing import Any

import torch
from torch import Tensor

from .constructors import MAKERS
from .interpreter import read_pickle
from .storages import Storages

# A file begins with three pickles: a number, a version and notes on the machine.
_MAGIC, _VERSION = 0x1950A86A20F9469CFC6C, 1001


class LegacyFile:
    """A row of pickles, followed by the bytes of the storages.

    Args:
        file: the file, open for reading.
    """

    def __init__(self, file: BufferedReader) -> None:
        self.file = file
        self.size = os.fstat(file.fileno()).st_size

    def read(self, device: torch.device) -> Any:
        """Returns the value in the file."""
        start = self._skip_header()
        lengths: dict[str, int] = {}

        def note(key: str, length: int) -> Tensor:
            lengths[key] = length
            return torch.empty(length, dtype=torch.uint8, device='meta')

        # Read twice: first for the lengths of the storages, whose bytes follow the pickle.
        storages = Storages(note, self.size)
        value = read_pickle(self.file, MAKERS, storages.load)
        contents = self._contents(lengths, storages.itemsizes, device)
        if device.type == 'meta':
            return value
        self.file.seek(start)
        return read_pickle(
            self.file, MAKERS, Storages(lambda key, length: contents[key], self.size).load
        )

    def check(self) -> None:
        """Does nothing, because the whole file is read at once."""

    def _skip_header(self) -> int:
        """Checks the beginning of the file; returns the position of the value."""
        try:
            magic, version = read_pickle(self.file, {}), read_pickle(self.file, {})
        except Exception:
            magic = version = None
        if (type(magic), magic, version) != (int, _MAGIC, _VERSION):
            raise ValueError('it does not begin like a file of torch')
        machine = read_pickle(self.file, {})
        if type(machine) is not dict or machine.get('little_endian') is not True:
            raise ValueError('its numbers are not little-endian')
        return self.file.tell()

    def _contents(
        self, lengths: dict[str, int], itemsizes: dict[str, int], device: torch.device
    ) -> dict[str, Tensor]:
        """Returns the bytes of the storages by their keys."""
        keys = read_pickle(self.file, {})
        are_keys = type(keys) is list and all(type(key) is str for key in keys)
        if not are_keys or sorted(keys) != sorted(lengths):
            raise ValueError('its tensors have other storages than the file')
        start = self.file.tell()
        if start + sum(lengths.values()) + 8 * len(keys) != self.size:
            raise ValueError('it has another length than its tensors')
        contents = {}
        for key in keys:
            (elements,) = struct.unpack('<q', self.file.read(8))
            if elements * itemsizes[key] != lengths[key]:
                raise ValueError('a storage in it has another length than its tensors')
            if device.type == 'meta':
                self.file.seek(lengths[key], os.SEEK_CUR)
                continue
            content = torch.empty(lengths[key], dtype=torch.uint8)
            if self.file.readinto(memoryview(content.numpy())) != lengths[key]:
                raise ValueError('it ends too early')
            contents[key] = content.to(device)
        return contents
