"""Writes files and folders that other processes only ever see complete.

Each function writes to a temporary name in the folder of the target, forces the content to disk,
renames it, and forces the folder to disk. After a kill, a full disk or a power failure, the target
is either the old file or the complete new one.
"""

from __future__ import annotations

import contextlib
import os
import re
import secrets
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import lock_descriptor

# Windows neither writes nor renames a locked file, so temporary files of killed processes stay.
_CAN_LOCK = os.name != 'nt'
_TEMPORARY = re.compile(r'\.[0-9a-f]{8}\.part$')
# Loaders find these files first, so they are renamed after the files that they refer to.
_OPENED_FIRST = ('config.json',)


@contextmanager
def staged_file(path: str | Path) -> Iterator[Path]:
    """Yields a temporary file to write, and renames it to ``path`` if the context ends normally.

    The temporary name is unique, so several processes can write the same ``path``; the last one to
    finish wins. An error removes the temporary file. A temporary file that a killed process left in
    the same folder is removed by the next call.

    Args:
        path: the file; an existing one is replaced.
    """
    path = Path(path)
    with _temporary(path) as part:
        # 0o666 less the umask, as open() creates files.
        mode = part.stat().st_mode & 0o777
        yield part
        # The writer may have replaced the temporary file by one that only its owner can read, as
        # safetensors does.
        part.chmod(mode)
        _publish({part: path})


@contextmanager
def staged(target: str | Path, force: bool = False) -> Iterator[Path]:
    """Yields a temporary path for a file or folder, and moves everything written there into place.

    Files that the writer creates beside that path are moved too, such as the external data of an
    ONNX graph. Each file is complete when it appears; the file that loaders open first appears
    last.

    Args:
        target: the file or folder. The files of an existing folder that are not written again stay.
        force: whether existing files may be overwritten.

    Raises:
        ValueError: if something exists at ``target`` or at the place of a written file, unless
            ``force``.
    """
    target = Path(target)
    check_free([target], force)
    check_folder(target.parent)
    with _temporary(target, is_folder=True) as folder:
        yield folder / target.name
        written = [file for file in folder.rglob('*') if file.is_file()]
        written.sort(key=lambda file: file.name in (target.name, *_OPENED_FIRST))
        places = {file: target.parent / file.relative_to(folder) for file in written}
        check_free(places.values(), force)
        _publish(places)


def write_atomically(path: str | Path, content: bytes) -> None:
    """Writes a file so that it is either complete or, after a kill or a full disk, unchanged."""
    with staged_file(path) as part, open(part, 'wb') as file:
        file.write(content)


def check_free(places: Iterable[Path], force: bool = False) -> None:
    """Checks that files can be written and nothing is overwritten, without creating a folder.

    Raises:
        ValueError: if one of the places exists, unless ``force``, or its folder cannot be written.
    """
    places = list(places)
    for folder in {place.parent for place in places}:
        # A folder that does not exist yet is created later, in the nearest existing one, so that an
        # error in between leaves no empty folder.
        existing = folder
        while not existing.exists() and existing != existing.parent:
            existing = existing.parent
        if reason := why_not_writable(existing):
            raise ValueError(f'the folder {folder} cannot be used ({reason}); name another folder')
    for place in places:
        if place.exists() and not force:
            raise ValueError(
                f'{place} exists already; name another place, or overwrite it with force=True'
            )


def why_not_writable(folder: str | Path) -> str | None:
    """Creates a folder; returns the reason why no file can be written in it, or None."""
    if os.path.exists(folder) and not os.path.isdir(folder):
        return 'it is a file'
    try:
        os.makedirs(folder, exist_ok=True)
    except OSError as error:
        return error.strerror
    return None if os.access(folder, os.W_OK | os.X_OK) else 'it may not be written'


def check_folder(folder: str | Path, option: str = 'another folder') -> None:
    """Creates a folder before the computation whose results it will hold.

    Raises:
        ValueError: if it cannot be created or written; the error recommends ``option``.
    """
    if reason := why_not_writable(folder):
        raise ValueError(f'the folder {folder} cannot be used ({reason}); name {option}')


def check_output(path: str | Path, option: str = 'another place') -> None:
    """Creates the folder of a file before the computation whose result the file will hold.

    Raises:
        ValueError: if the file cannot be written; the error recommends ``option``.
    """
    reason = why_not_writable(os.path.dirname(path) or '.')
    if reason is None and os.path.isdir(path):
        reason = 'it is a folder'
    if reason is None and os.path.exists(path) and not os.access(path, os.W_OK):
        reason = 'the file there may not be written'
    if reason:
        raise ValueError(f'{path} cannot be written ({reason}); name {option}')


def _publish(places: dict[Path, Path]) -> None:
    """Renames temporary files to their places, in order, each with its content on disk first."""
    changed = set()
    for file, place in places.items():
        _sync_file(file)
        if not place.parent.exists():
            place.parent.mkdir(parents=True, exist_ok=True)
            changed.add(place.parent.parent)
        os.replace(file, place)
        changed.add(place.parent)
    # A new name is durable only once its folder is on disk.
    for folder in changed:
        _sync_folder(folder)


@contextmanager
def _temporary(path: Path, is_folder: bool = False) -> Iterator[Path]:
    """Yields a new temporary file or folder beside ``path``, and removes it at the end.

    Its lock shows to other processes that its writer is alive.
    """
    _remove_abandoned(path.parent)
    part, descriptor = _create_locked(path, is_folder)
    try:
        yield part
    finally:
        _remove(part)
        if descriptor is not None:
            os.close(descriptor)


def _create_locked(path: Path, is_folder: bool) -> tuple[Path, int | None]:
    """Creates a temporary file or folder; returns it with the descriptor that holds its lock."""
    while True:
        # Short enough for any file system, whatever the length of the name.
        part = path.with_name(f'{path.name[:60]}.{secrets.token_hex(4)}.part')
        try:
            if is_folder:
                part.mkdir()
            else:
                part.touch(exist_ok=False)
        except FileExistsError:
            continue
        if not _CAN_LOCK:
            return part, None
        # Another process may take a new file for an abandoned one until it is locked.
        with contextlib.suppress(FileNotFoundError):
            descriptor = _open(part)
            # Without locks on this file system, temporary files are never removed by others.
            with contextlib.suppress(OSError):
                lock_descriptor(descriptor)
            if os.fstat(descriptor).st_nlink:
                return part, descriptor
            os.close(descriptor)


def _remove_abandoned(folder: Path) -> None:
    """Removes the temporary files and folders of processes that were killed."""
    if not _CAN_LOCK:
        return
    found = []
    with contextlib.suppress(OSError), os.scandir(folder) as entries:
        found = [Path(entry.path) for entry in entries if _TEMPORARY.search(entry.name)]
    for part in found:
        with contextlib.suppress(OSError):
            descriptor = _open(part)
            try:
                # False while the writer lives; OSError on file systems without locks.
                if lock_descriptor(descriptor, blocking=False):
                    _remove(part)
            finally:
                os.close(descriptor)


def _open(part: Path) -> int:
    """Opens a temporary file or folder for locking."""
    # NFS locks a file only through a descriptor that may write.
    return os.open(part, os.O_RDONLY if part.is_dir() else os.O_RDWR)


def _remove(part: Path) -> None:
    """Removes a temporary file or folder if it still exists."""
    if part.is_dir():
        shutil.rmtree(part, ignore_errors=True)
    else:
        part.unlink(missing_ok=True)


def _sync_file(file: Path) -> None:
    """Forces the content of a file to disk."""
    with open(file, 'rb') as written:
        os.fsync(written.fileno())


def _sync_folder(folder: Path) -> None:
    """Forces the names in a folder to disk."""
    if os.name == 'nt':
        # Windows cannot open a folder.
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
