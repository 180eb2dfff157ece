"""Rules for which entries of a source are images, shared by folders, tar files and zip files."""

from __future__ import annotations

import logging
import posixpath
from collections.abc import Iterable, Sequence

from mmengine.logging import print_log

from ...utils.printable import printable

IMAGE_EXTENSIONS = (
    *('.jpg', '.jpeg', '.png', '.webp', '.bmp', '.tif', '.tiff', '.ppm', '.pgm', '.gif'),
    *('.heic', '.heif', '.avif'),
)
# Reasons for which entries are left out, as they appear in logs and manifests.
ARCHIVES = 'archives within; unpack them, or pack all images with tools/prepare_dataset.py'
SPECIAL = 'entries that are not regular files, or links that lead to none'
OUTSIDE = 'paths that lead out of the archive'
FOLDER_LINKS = 'links to folders within the archive'
REPLACED = 'earlier members of the same name'
UNREADABLE = 'folders that cannot be read'
EARLY_END = 'whatever follows an early end'
LABELS = 'labels that are not valid'

_ARCHIVE_EXTENSIONS = tuple(
    ['.tar', '.zip', '.7z', '.rar', '.tgz', '.tbz2', '.txz', '.gz', '.bz2', '.xz', '.zst']
)
# Folders of operating systems and network storage.
_SYSTEM_FOLDERS = {'__MACOSX', 'lost+found', '@eaDir', '$RECYCLE.BIN', 'System Volume Information'}


def inner_name(name: str) -> str | None:
    """Returns the normalized path of an archive's member; None if it leads out of the archive."""
    name = posixpath.normpath(name)
    return None if name.startswith('/') or name.split('/', 1)[0] == '..' else name


def is_hidden(name: str) -> bool:
    """Returns whether a path or a folder in it is hidden (starts with a dot) or a system folder."""
    return any(part.startswith('.') or part in _SYSTEM_FOLDERS for part in name.split('/'))


def is_archive(name: str) -> bool:
    """Returns whether a file of this name is an archive, whose images are not found."""
    return name.lower().endswith(_ARCHIVE_EXTENSIONS)


def class_folders(images: Iterable[str], folders: Iterable[str]) -> list[str]:
    """Returns the classes that folders stand for: the first-level folders, in alphabetical order.

    A folder without images counts. Otherwise all classes after it would get other numbers.

    Args:
        images: paths of images.
        folders: paths of folders.

    Returns:
        Names of folders, and ``''`` if some images lie in no folder.
    """
    named = {name.partition('/')[0] if '/' in name else '' for name in images}
    return sorted(named | {name.partition('/')[0] for name in folders if name})


class LeftOut:
    """Counts the entries of a source that are left out, by reason, with an example of each.

    Args:
        notes: result of :meth:`notes` of another object.
    """

    def __init__(self, notes: Iterable[Sequence] = ()) -> None:
        self._found: dict[str, tuple[int, str]] = {}
        for reason, number, example in notes:
            self.add(reason, example, number)

    def add(self, reason: str, example: str, number: int = 1) -> None:
        """Counts entries that are left out; keeps the alphabetically first example."""
        known, first = self._found.get(reason, (0, example))
        self._found[reason] = known + number, min(first, example)

    def notes(self) -> list[list]:
        """Returns reasons, numbers and examples, for JSON."""
        return [[reason, *self._found[reason]] for reason in sorted(self._found)]

    def __str__(self) -> str:
        parts = []
        for reason, number, name in self.notes():
            parts.append(f'{reason} ({number}, such as {printable(name)})')
        return '; '.join(parts)

    def warn(self, source: str) -> None:
        """Logs one warning if entries of a source are left out."""
        if self._found:
            print_log(
                f'Left out of {printable(source)}: {self}', logger='current', level=logging.WARNING
            )


def no_image(source: str, extensions: Sequence[str], left_out: LeftOut) -> FileNotFoundError:
    """Returns the error for a source without images, with the entries that were left out."""
    others = f'; left out: {left_out}' if left_out.notes() else ''
    return FileNotFoundError(
        f'there is no image in {source} (looked for {", ".join(extensions)}){others}'
    )


def refuse_mixture(source: str, images: Sequence[str], tars: Sequence[str]) -> None:
    """Raises ValueError if a folder holds both tar files and, at any depth, images."""
    if tars and images:
        raise ValueError(
            f'{printable(source)} holds both tar files, such as {printable(tars[0])}, and images, '
            f'such as {printable(images[0])}; move the tar files or the images into another folder'
        )


def is_tar(name: str) -> bool:
    """Returns whether a file of this name is a tar file of images."""
    return name.lower().endswith('.tar') and not name.startswith('.')
