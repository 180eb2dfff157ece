"""Writes files that other processes only ever see whole."""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_TEMPORARY = re.compile(r'\.[0-9a-f]{8}\.part$')


@contextmanager
def unfinished(path: str | Path) -> Iterator[Path]:
    """Yields a temporary file to write, and renames it to ``path`` when the context ends without an
    error.

    The name is the process's own, so that processes that write the same file do not disturb each
    other: the last one to end wins. The content is on disk before the name is. An error removes the
    temporary file; one that a killed process left in the same folder is removed by the next call.
    """
    path = Path(path)
    _remove_abandoned(path.parent)
    part, descriptor = _create_temporary(path)
    mode = os.fstat(descriptor).st_mode
    try:
        yield part
        # The writer may have put another file in its place: safetensors does, one that only its
        # owner can read.
        part.chmod(mode & 0o777)
        with open(part, 'rb') as written:
            os.fsync(written.fileno())
        os.replace(part, path)
    except BaseException:
        part.unlink(missing_ok=True)
        raise
    finally:
        os.close(descriptor)
    _sync_folder(path.parent)


def write_atomically(path: str | Path, content: bytes) -> None:
    """Writes a file that is there whole or, after a kill or a full disk, not at all; an older one
    stays until then.
    """
    with unfinished(path) as part, open(part, 'wb') as file:
        file.write(content)


def why_not_writable(folder: str | Path) -> str | None:
    """Makes a folder; returns why no file can be written in it, or None."""
    if os.path.exists(folder) and not os.path.isdir(folder):
        return 'it is a file'
    try:
        os.makedirs(folder, exist_ok=True)
    except OSError as error:
        return error.strerror
    return None if os.access(folder, os.W_OK | os.X_OK) else 'it may not be written'


def check_folder(folder: str | Path, option: str = 'another folder') -> None:
    """Makes a folder before the work whose results it is to hold.

    Raises:
        ValueError: if it cannot be made or written; the sentence offers ``option``.
    """
    if reason := why_not_writable(folder):
        raise ValueError(f'the folder {folder} cannot be used ({reason}); name {option}')


def check_output(path: str | Path, option: str = 'another place') -> None:
    """Makes the folder of a file before the work whose result the file is to hold.

    Raises:
        ValueError: if the file cannot be written; the sentence offers ``option``.
    """
    reason = why_not_writable(os.path.dirname(path) or '.')
    if reason is None and os.path.isdir(path):
        reason = 'it is a folder'
    if reason is None and os.path.exists(path) and not os.access(path, os.W_OK):
        reason = 'the file there may not be written'
    if reason:
        raise ValueError(f'{path} cannot be written ({reason}); name {option}')


def _create_temporary(path: Path) -> tuple[Path, int]:
    """Creates a file of a new name beside ``path`` and locks it, which tells that its writer is
    alive.
    """
    while True:
        # Short enough for any file system, whatever the length of the name.
        part = path.with_name(f'{path.name[:60]}.{secrets.token_hex(4)}.part')
        try:
            descriptor = os.open(part, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o666)
        except FileExistsError:
            continue
        # Without locks on this file system, temporary files are never removed by others.
        with contextlib.suppress(OSError):
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        # Another process may have removed the file before it was locked.
        if os.fstat(descriptor).st_nlink:
            return part, descriptor
        os.close(descriptor)


def _remove_abandoned(folder: Path) -> None:
    """Removes the temporary files of processes that were killed."""
    found = []
    with contextlib.suppress(OSError), os.scandir(folder) as entries:
        found = [entry.path for entry in entries if _TEMPORARY.search(entry.name)]
    for part in found:
        with contextlib.suppress(OSError), open(part, 'rb+') as file:
            # Fails while the writer lives, and on file systems without locks.
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            os.unlink(part)


def _sync_folder(folder: Path) -> None:
    """Forces the names in a folder to disk."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
