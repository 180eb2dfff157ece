"""Which entries of a source are images: one rule for folders, tar files and zip files."""

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

ARCHIVES = 'archives within; unpack them, or pack all images with tools/prepare_dataset.py'
SPECIAL = 'entries that are not regular files, or links that lead to none'
OUTSIDE = 'paths that lead out of the archive'
FOLDER_LINKS = 'links to folders within the archive'
REPLACED = 'earlier members of the same name'
UNREADABLE = 'folders that cannot be read'
EARLY_END = 'whatever follows an early end'
LABELS = 'labels that are not valid'

_ARCHIVE_ENDINGS = (
    '.tar',
    '.zip',
    '.7z',
    '.rar',
    '.tgz',
    '.tbz2',
    '.txz',
    '.gz',
    '.bz2',
    '.xz',
    '.zst',
)
# Folders in which operating systems and disk stations keep what is theirs.
_SYSTEM_FOLDERS = {'__MACOSX', 'lost+found', '@eaDir', '$RECYCLE.BIN', 'System Volume Information'}


def inner_name(name: str) -> str | None:
    """The path of an archive's member without ``./`` and the like; None if it leads out of the
    archive.
    """
    name = posixpath.normpath(name)
    return None if name.startswith('/') or name.split('/', 1)[0] == '..' else name


def is_hidden(name: str) -> bool:
    """Whether a path, or a folder in it, is hidden (its name begins with a dot) or belongs to the
    system.
    """
    return any(part.startswith('.') or part in _SYSTEM_FOLDERS for part in name.split('/'))


def is_archive(name: str) -> bool:
    """Whether a file of this name is an archive, which may hold images that are not looked for
    there.
    """
    return name.lower().endswith(_ARCHIVE_ENDINGS)


def class_folders(images: Iterable[str], folders: Iterable[str]) -> list[str]:
    """The classes that folders stand for: those of the first level, in alphabetical order.

    A folder without images counts, as otherwise all classes after it would get other numbers.

    Args:
        images: paths of images.
        folders: paths of folders.

    Returns:
        Names of folders, with ``''`` if some images lie in no folder.
    """
    named = {name.partition('/')[0] if '/' in name else '' for name in images}
    return sorted(named | {name.partition('/')[0] for name in folders if name})


class LeftOut:
    """Counts what is left out of a source, by reason, with an example of each.

    Args:
        notes: what :meth:`notes` gave.
    """

    def __init__(self, notes: Iterable[Sequence] = ()) -> None:
        self._found: dict[str, tuple[int, str]] = {}
        for reason, number, example in notes:
            self.add(reason, example, number)

    def add(self, reason: str, example: str, number: int = 1) -> None:
        """Counts what is left out for a reason; of all examples the alphabetically first is
        kept.
        """
        known, first = self._found.get(reason, (0, example))
        self._found[reason] = known + number, min(first, example)

    def notes(self) -> list[list]:
        """Reasons, numbers and examples, for JSON."""
        return [[reason, *self._found[reason]] for reason in sorted(self._found)]

    def __str__(self) -> str:
        return '; '.join(
            f'{reason} ({number}, such as {printable(name)})'
            for reason, number, name in self.notes()
        )

    def warn(self, source: str) -> None:
        """Logs one warning for a source of which something is left out."""
        if self._found:
            print_log(
                f'Left out of {printable(source)}: {self}', logger='current', level=logging.WARNING
            )


def no_image(source: str, extensions: Sequence[str], left_out: LeftOut) -> FileNotFoundError:
    """The error for a source without images, which says what else is in it."""
    others = f'; left out: {left_out}' if left_out.notes() else ''
    return FileNotFoundError(
        f'there is no image in {source} (looked for {", ".join(extensions)}){others}'
    )


def refuse_mixture(source: str, images: Sequence[str], tars: Sequence[str]) -> None:
    """Raises ValueError if a folder holds both images, at whatever depth, and tar files."""
    if tars and images:
        raise ValueError(
            f'{printable(source)} holds both tar files, such as {printable(tars[0])}, and images, '
            'such as '
            f'{printable(images[0])}; move the ones or the others into a folder of their own'
        )


def is_tar(name: str) -> bool:
    """Whether a file of this name is taken for a tar file of images."""
    return name.lower().endswith('.tar') and not name.startswith('.')
