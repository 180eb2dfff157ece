"""Reads files of ``torch.save`` as data, and verifies their checksums.

Nothing in a file is run (see :mod:`.interpreter`).
"""

from __future__ import annotations

import io
import os
import struct
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from io import BufferedReader
from typing import Any, TypeAlias

import torch
from torch import Tensor

from .constructors import MAKERS
from .interpreter import read_pickle
from .tensors import STORAGES, Storage
from .values import Name, RefusedName, one_line

_PIECE = 1 << 20
_BAD_STORAGE = 'a storage in it is not described as torch describes it'
# Files of torch before version 1.6 begin with three pickles: a number, a version and notes on the
# machine.
_MAGIC, _VERSION = 0x1950A86A20F9469CFC6C, 1001

Device: TypeAlias = str | torch.device | None


def read_torch_file(path: str | os.PathLike, device: Device = None) -> Any:
    """Reads a file of ``torch.save``: tensors, arrays, numbers, strings and containers of them.

    Args:
        path: the file.
        device: device of the tensors, the CPU if None; on ``'meta'`` they are not read.

    Raises:
        FileNotFoundError: if there is none.
        ValueError: if it is damaged or holds anything but data.
    """
    with short_errors(path), open(path, 'rb') as file:
        return _open(file).read(torch.device(device or 'cpu'))


def check_whole(path: str | os.PathLike) -> None:
    """Raises the errors of :func:`read_torch_file`, but keeps nothing of the file in memory."""
    with short_errors(path), open(path, 'rb') as file:
        content = _open(file)
        content.read(torch.device('meta'))
        content.check()


@contextmanager
def short_errors(name: str | os.PathLike) -> Iterator[None]:
    """Replaces the long errors of torch's unpickling and others by a one-line error.

    Raises:
        ValueError: for any error but FileNotFoundError.
    """
    try:
        yield
    except FileNotFoundError:
        raise
    except RefusedName as error:
        raise ValueError(
            f'{name} holds {error.name}, a type that no checkpoint needs, so it was not loaded and '
            'nothing in it was run; with trust_checkpoints() it is unpickled, which is safe only '
            'if you trust its source'
        ) from None
    except Exception as error:
        reason = one_line(str(error)) or 'it ends too early'
        if type(error) not in (ValueError, RuntimeError):
            reason = f'{reason} ({type(error).__name__})'
        raise ValueError(f'{name} is not a readable checkpoint, or incomplete: {reason}') from None


def _open(file: BufferedReader) -> _Archive | _Legacy:
    """Returns the reader of a file's format."""
    is_archive = file.read(4) == b'PK\x03\x04'
    file.seek(0)
    return _Archive(file) if is_archive else _Legacy(file)


class _Archive:
    """The zip file that torch writes since version 1.6.

    It has a pickle, and a record of bytes for each storage.
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
        storages = _Storages(lambda key, length: self._content(key, length, device), self.size)
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
            self._pieces(record, lambda position, piece: None)

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

        def keep(position: int, piece: bytes) -> None:
            view[position : position + len(piece)] = piece

        self._pieces(record, keep)
        return content

    def _pieces(self, record: zipfile.ZipInfo, use: Callable[[int, bytes], None]) -> None:
        """Calls ``use`` with each piece of a record and its position."""
        position = 0
        # zipfile verifies the checksum at the end.
        with self.zip.open(record) as stream:
            while piece := stream.read(_PIECE):
                use(position, piece)
                position += len(piece)
        if position != record.file_size:
            raise ValueError('it ends too early')
        self.unread.pop(record.filename, None)


class _Legacy:
    """The format of torch before version 1.6, which has no checksums.

    It is a row of pickles, followed by the bytes of the storages.
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
        storages = _Storages(note, self.size)
        value = read_pickle(self.file, MAKERS, storages.load)
        contents = self._contents(lengths, storages.itemsizes, device)
        if device.type == 'meta':
            return value
        self.file.seek(start)
        return read_pickle(
            self.file, MAKERS, _Storages(lambda key, length: contents[key], self.size).load
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


class _Storages:
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
