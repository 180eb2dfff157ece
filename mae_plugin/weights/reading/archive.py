"""The format of ``torch.save`` since torch 1.6: a zip file with a checksum for each record."""

from __future__ import annotations

import io
import os
import zipfile
from collections.abc import Callable
from io import BufferedReader
from typing import Any

import torch
from torch import Tensor

from .constructors import MAKERS
from .interpreter import read_pickle
from .storages import Storages

_CHUNK = 1 << 20


class Archive:
    """A zip file of a pickle, and a record of bytes for each storage.

    Args:
        file: the file, open for reading.

    Raises:
        ValueError: if it is another zip file.
    """

    def __init__(self, file: BufferedReader) -> None:
        self.size = os.fstat(file.fileno()).st_size
        self.zip = zipfile.ZipFile(file)
        records = self.zip.infolist()
        self.records = {record.filename: record for record in records}
        if len(self.records) != len(records):
            raise ValueError('two of its records have the same name')
        if any(record.compress_type != zipfile.ZIP_STORED for record in records):
            raise ValueError('it is a zip file, but not of tensors')
        if sum(record.file_size for record in records) > self.size:
            raise ValueError('its records are larger than the file')
        pickles = [
            name for name in self.records if name.count('/') == 1 and name.endswith('/data.pkl')
        ]
        if len(pickles) != 1:
            raise ValueError('it is a zip file, but not of tensors')
        self.prefix = pickles[0].removesuffix('data.pkl')
        if not all(name.startswith(self.prefix) for name in self.records):
            raise ValueError('its records do not belong together')
        if f'{self.prefix}constants.pkl' in self.records:
            raise ValueError('it is a TorchScript program')
        self.unread = dict(self.records)

    def read(self, device: torch.device) -> Any:
        """Returns the value in the file."""
        has_order = f'{self.prefix}byteorder' in self.records
        if has_order and bytes(self._bytes('byteorder')) != b'little':
            raise ValueError('its numbers are not little-endian')
        storages = Storages(lambda key, length: self._content(key, length, device), self.size)
        stream = io.BytesIO(self._bytes('data.pkl').numpy())
        value = read_pickle(stream, MAKERS, storages.load)
        if stream.read(1):
            raise ValueError('it has bytes after its pickle')
        if device.type != 'meta':
            self.check()
        return value

    def check(self) -> None:
        """Verifies the checksums of the records that were not read."""
        for record in tuple(self.unread.values()):
            self._chunks(record, lambda position, chunk: None)

    def _record(self, name: str) -> zipfile.ZipInfo:
        """Returns a record by its name without the prefix."""
        if f'{self.prefix}{name}' not in self.records:
            raise ValueError(f'it lacks {name}')
        return self.records[f'{self.prefix}{name}']

    def _content(self, key: str, length: int, device: torch.device) -> Tensor:
        """Returns the bytes of a storage, (length,) uint8."""
        record = self._record(f'data/{key}')
        if record.file_size != length:
            raise ValueError('a storage in it has another length than its record')
        if device.type == 'meta':
            return torch.empty(length, dtype=torch.uint8, device=device)
        return self._bytes(f'data/{key}').to(device)

    def _bytes(self, name: str) -> Tensor:
        """Returns the bytes of a record as a uint8 tensor."""
        record = self._record(name)
        content = torch.empty(record.file_size, dtype=torch.uint8)
        view = memoryview(content.numpy())

        def keep(position: int, chunk: bytes) -> None:
            view[position : position + len(chunk)] = chunk

        self._chunks(record, keep)
        return content

    def _chunks(self, record: zipfile.ZipInfo, use: Callable[[int, bytes], None]) -> None:
        """Calls ``use`` with each chunk of a record and its position."""
        position = 0
        # zipfile verifies the checksum at the end.
        with self.zip.open(record) as stream:
            while chunk := stream.read(_CHUNK):
                use(position, chunk)
                position += len(chunk)
        if position != record.file_size:
            raise ValueError('it ends too early')
        self.unread.pop(record.filename, None)
