"""Lists of a source's images that are made once, kept on disk and mapped into memory.

An index is a safetensors file in the user's cache folder. Its arrays are mapped, not read: opening one takes
milliseconds whatever its length, and all processes of a machine share one copy.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import logging
import os
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import NamedTuple

import torch
from mmengine.logging import print_log
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

_VERSION = 2


class Index(NamedTuple):
    """What is known of a source: arrays of one entry per image or per folder, and short notes (JSON)."""

    arrays: dict[str, Tensor]
    notes: dict


class Names:
    """Strings in two arrays, which take no memory of their own when mapped from a file.

    Args:
        text: uint8, the UTF-8 strings one after the other.
        ends: int64, where each one ends.
    """

    def __init__(self, text: Tensor, ends: Tensor) -> None:
        self._text, self._ends = text.numpy(), ends.numpy()

    @staticmethod
    def arrays(names: Iterable[str]) -> tuple[Tensor, Tensor]:
        """The ``text`` and ``ends`` of strings."""
        # File names need not be UTF-8; surrogates bring back whatever bytes they had.
        encoded = [name.encode(errors='surrogateescape') for name in names]
        text = torch.frombuffer(bytearray(b''.join(encoded)) or bytearray(1), dtype=torch.uint8)
        return text, torch.tensor([len(name) for name in encoded], dtype=torch.long).cumsum(0)

    def __len__(self) -> int:
        return len(self._ends)

    def __getitem__(self, index: int) -> str:
        start = self._ends[index - 1] if index else 0
        return self._text[start : self._ends[index]].tobytes().decode(errors='surrogateescape')


def cached_index(
    key: str,
    folder: str | Path | None,
    is_current: Callable[[Index], bool],
    make: Callable[[], Index],
) -> Index:
    """Opens the index of a source, or makes it if there is none or the source has changed.

    Args:
        key: what the index is of.
        folder: where indices are kept; ``mae_plugin`` in ``$XDG_CACHE_HOME`` or ``~/.cache`` if None.
        is_current: whether an index still describes its source.
        make: gives a new one.
    """
    if folder is None:
        folder = Path(os.environ.get('XDG_CACHE_HOME') or Path.home() / '.cache', 'mae_plugin')
    path = Path(folder, f'{hashlib.sha256(f"{_VERSION} {key}".encode()).hexdigest()[:32]}.safetensors')
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        lock = open(path.with_suffix('.lock'), 'w')  # noqa: SIM115
        # Of several processes that start together one makes the index, and the others wait for it.
        fcntl.flock(lock, fcntl.LOCK_EX)
    except OSError as error:
        print_log(f'No index is kept, as {path.parent} cannot be written or locked ({error}).', logger='current')
        return make()
    with lock:
        if found := _open(path):
            if is_current(found):
                return found
            print_log(f'{key} has changed since it was indexed; indexing anew.', logger='current')
        index = make()
        part = path.with_suffix('.part')
        save_file(index.arrays, part, metadata={'notes': json.dumps(index.notes)})
        os.replace(part, path)
        return _open(path)


def _open(path: Path) -> Index | None:
    try:
        with safe_open(path, 'pt') as file:
            arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            return Index(arrays, json.loads(file.metadata()['notes']))
    except FileNotFoundError:
        return None
    except Exception as error:
        print_log(f'The index {path} is damaged ({error}); indexing anew.', logger='current', level=logging.WARNING)
        return None
