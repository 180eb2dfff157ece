"""File backends of mmengine for checkpoints that are written and replaced safely."""

from __future__ import annotations

import os
from pathlib import Path

from mmengine.fileio import LocalBackend, register_backend

from ...utils.atomic_files import write_atomically
from ...weights.digest import add_digest


class AtomicBackend(LocalBackend):
    """Writes local files atomically: each file is complete or absent."""

    def put(self, obj: bytes, filepath: str | Path) -> None:
        """Writes bytes with a checksum, and makes the folder if it is missing."""
        Path(filepath).parent.mkdir(parents=True, exist_ok=True)
        write_atomically(filepath, add_digest(obj))


register_backend('atomic', AtomicBackend, force=True)


class DeferredRemoval(LocalBackend):
    """Defers the removal of files until their successors are on disk."""

    def __init__(self) -> None:
        super().__init__()
        self._outdated: dict[Path, int] = {}

    def remove(self, filepath: str | Path) -> None:
        """Marks a file for removal."""
        self._outdated[Path(filepath)] = os.stat(filepath).st_mtime_ns

    def remove_outdated(self) -> None:
        """Removes the marked files."""
        for path, written in self._outdated.items():
            # The successor may have the same name.
            if path.is_file() and path.stat().st_mtime_ns == written:
                path.unlink()
        self.keep_outdated()

    def keep_outdated(self) -> None:
        """Keeps the marked files."""
        self._outdated.clear()
