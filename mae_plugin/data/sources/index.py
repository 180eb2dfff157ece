"""Lists of the images of a source, made once, kept on disk and mapped into memory.

An index is a safetensors file in the user's cache folder. Its arrays are mapped, not read: opening
an index takes milliseconds at any length, and all processes of a machine share one copy.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
from collections.abc import Callable, Iterable
from contextlib import ExitStack
from pathlib import Path
from typing import NamedTuple

import torch
from mmengine.logging import print_log
from safetensors import safe_open
from safetensors.torch import save
from torch import Tensor

from ...utils.atomic_files import write_atomically
from ...utils.locks import waiting_lock

# Raised when the content of an index changes, so that older ones are made again.
_VERSION = 4


class Index(NamedTuple):
    """Index of a source: arrays with one entry per image or folder, and short notes (JSON)."""

    arrays: dict[str, Tensor]
    notes: dict


class Names:
    """Strings in two arrays, which take no memory of their own when mapped from a file.

    Args:
        text: uint8, the concatenated UTF-8 strings.
        ends: int64, the end of each string in ``text``.
    """

    def __init__(self, text: Tensor, ends: Tensor) -> None:
        self._text, self._ends = text.numpy(), ends.numpy()

    @staticmethod
    def arrays(names: Iterable[str]) -> tuple[Tensor, Tensor]:
        """Returns the ``text`` and ``ends`` of strings."""
        # File names need not be UTF-8; surrogates preserve their bytes.
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

    An index that cannot be written, for lack of space or permission, is made in memory.

    Args:
        key: identifies the source and its settings.
        folder: folder of the indices; that of :func:`index_folder` if None.
        is_current: returns whether an index still matches its source.
        make: returns a new index.
    """
    name = f'{hashlib.sha256(f"{_VERSION} {key}".encode()).hexdigest()[:32]}.safetensors'
    path = Path(index_folder() if folder is None else folder, name)

    def log_wait(holder: str) -> None:
        print_log(f'Waiting for {holder}, which is indexing {key}.', logger='current')

    with ExitStack() as stack:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            # Of several processes that start together, one makes the index and the others wait.
            stack.enter_context(waiting_lock(path.with_suffix('.lock'), log_wait))
        except OSError as error:
            print_log(
                f'No index is kept, as {path.parent} cannot be written or locked ({error}).',
                logger='current',
            )
            return make()
        if found := _open(path):
            if is_current(found):
                return found
            print_log(f'{key} has changed since it was indexed; indexing anew.', logger='current')
        index = make()
        try:
            write_atomically(path, save(index.arrays, metadata={'notes': json.dumps(index.notes)}))
        except OSError as error:
            print_log(
                f'The index of {key} could not be written ({error}); going on without it.',
                logger='current',
            )
            return index
        return _open(path) or index


def index_folder() -> Path:
    """Returns the folder of indices: ``mae_plugin`` in ``$XDG_CACHE_HOME`` or ``~/.cache``."""
    return Path(os.environ.get('XDG_CACHE_HOME') or Path.home() / '.cache', 'mae_plugin')


def _open(path: Path) -> Index | None:
    """Opens an index file; returns None if it does not exist or is damaged."""
    try:
        with safe_open(path, 'pt') as file:
            arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            return Index(arrays, json.loads(file.metadata()['notes']))
    except FileNotFoundError:
        return None
    except Exception as error:
        print_log(
            f'The index {path} is damaged ({error}); indexing anew.',
            logger='current',
            level=logging.WARNING,
        )
        return None
