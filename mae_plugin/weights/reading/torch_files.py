"""Reads files of ``torch.save`` as data, and verifies their checksums.

Nothing in a file is run (see :mod:`.interpreter`).
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from io import BufferedReader
from typing import Any, TypeAlias

import torch

from .archive import Archive
from .legacy import LegacyFile
from .values import RefusedName, one_line

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


def _open(file: BufferedReader) -> Archive | LegacyFile:
    """Returns the reader of a file's format."""
    is_archive = file.read(4) == b'PK\x03\x04'
    file.seek(0)
    return Archive(file) if is_archive else LegacyFile(file)
