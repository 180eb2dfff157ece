"""Index of a folder tree of images, scanned in parallel, and again only if it has changed."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from typing import NamedTuple

import torch
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from ...utils.printable import printable
from .entries import (
    ARCHIVES,
    IMAGE_EXTENSIONS,
    SPECIAL,
    UNREADABLE,
    LeftOut,
    class_folders,
    is_archive,
    is_hidden,
    is_tar,
)
from .index import Index, Names, cached_index
from .open_files import is_out_of_descriptors

# A folder that changed this recently before it was read may change again with the same date.
_UNSETTLED_NS = 2 * 10**9


def index_folder(
    root: str, extensions: tuple[str, ...] = IMAGE_EXTENSIONS, index_dir: str | None = None
) -> Index:
    """Returns the index of the images in a folder tree, in alphabetical order of their paths.

    An existing index is used as long as all folders in the tree have the same dates: a file that is
    added or removed changes the date of its folder. Links are followed. Entries that are left out,
    and the reasons, are described in :mod:`.entries`.

    Args:
        root: the folder.
        extensions: file name extensions of images, in lower case.
        index_dir: folder of the indices (see :func:`cached_index`).

    Returns:
        An index with ``text`` and ``ends``, the :class:`Names` of the images as paths below
        ``root``. Its notes are ``classes`` (see :func:`class_folders`); ``empty_classes``, those
        without images; ``left_out`` (see :class:`LeftOut`); and ``unreadable``, the folders that
        cannot be read.

    Raises:
        FileNotFoundError: if the folder does not exist.
    """
    root = os.path.abspath(root)
    if not os.path.isdir(root):
        raise FileNotFoundError(f'the folder of images {root} does not exist')

    def make() -> Index:
        """Scans the folder."""
        scan = scan_folder(root, extensions)
        text, ends = Names.arrays(scan.images)
        folder_text, folder_ends = Names.arrays(scan.dates)
        arrays = dict(text=text, ends=ends, folder_text=folder_text, folder_ends=folder_ends)
        arrays['dates'] = torch.tensor(list(scan.dates.values()))
        classes = class_folders(scan.images, [*scan.dates, *scan.unreadable])
        notes = dict(
            classes=classes,
            empty_classes=sorted(set(classes) - set(class_folders(scan.images, ()))),
            unreadable=scan.unreadable,
            left_out=scan.left_out.notes(),
        )
        return Index(arrays, notes)

    def is_current(index: Index) -> bool:
        """Returns whether all folders have the same dates and no other one became readable."""
        names = Names(index.arrays['folder_text'], index.arrays['folder_ends'])
        folders = [os.path.join(root, names[i]) for i in range(len(names))]
        for folder in index.notes['unreadable']:
            # The permission was granted since.
            if os.access(os.path.join(root, folder), os.R_OK | os.X_OK):
                return False
        known = index.arrays['dates'].tolist()
        with ThreadPoolExecutor(16) as pool:
            dates = pool.map(_date, folders)
            return all(date == before for date, before in zip(dates, known, strict=True))

    return cached_index(f'{root} ({" ".join(sorted(extensions))})', index_dir, is_current, make)


class FolderScan(NamedTuple):
    """Content of a folder tree.

    Attributes:
        images: paths below the root, in alphabetical order.
        dates: time of the last change of each folder (ns), by path below the root; -1 if the folder
            may change again with the same date.
        unreadable: folders that cannot be read.
        tars: names of the tar files in the root itself.
        left_out: other entries that could hold images.
    """

    images: list[str]
    dates: dict[str, int]
    unreadable: list[str]
    tars: list[str]
    left_out: LeftOut


def scan_folder(
    root: str, extensions: tuple[str, ...] = IMAGE_EXTENSIONS, show_progress: bool = True
) -> FolderScan:
    """Lists the images in a folder tree, in parallel.

    Raises:
        OSError: if the root cannot be read.
    """
    scan = FolderScan([], {}, [], [], LeftOut())
    # Names are plain text, without rich's markup.
    description = TextColumn('{task.completed:,} images in {task.description}', markup=False)
    columns = SpinnerColumn(), description, TimeElapsedColumn()
    with (
        ThreadPoolExecutor(16) as pool,
        Progress(*columns, transient=True, disable=not show_progress) as progress,
    ):
        task = progress.add_task(printable(root), total=None)
        pending: set[Future] = {pool.submit(_list, root, '', extensions, frozenset())}
        while pending:
            done, pending = wait(pending, return_when=FIRST_COMPLETED)
            for listing in (future.result() for future in done):
                scan.images.extend(listing.images)
                scan.tars.extend(listing.tars)
                for reason, name in listing.left_out:
                    scan.left_out.add(reason, name)
                if listing.is_unreadable:
                    scan.unreadable.append(listing.folder)
                elif listing.date is not None:
                    scan.dates[listing.folder] = listing.date
                for name in listing.subfolders:
                    pending.add(pool.submit(_list, root, name, extensions, listing.above))
            progress.update(task, completed=len(scan.images))
    for names in (scan.images, scan.unreadable, scan.tars):
        names.sort()
    return scan


class _Listing(NamedTuple):
    """Content of one folder, its date, and the identities of this folder and those above it."""

    folder: str
    date: int | None = None
    images: Sequence[str] = ()
    subfolders: Sequence[str] = ()
    tars: Sequence[str] = ()
    left_out: Sequence[tuple[str, str]] = ()
    above: frozenset = frozenset()
    is_unreadable: bool = False


def _list(root: str, folder: str, extensions: tuple[str, ...], above: frozenset) -> _Listing:
    """Lists one folder; below the root, a folder that cannot be read is an empty listing."""
    try:
        return _list_readable(root, folder, extensions, above)
    except OSError as error:
        if not folder or is_out_of_descriptors(error):
            raise
        left_out = [(f'{UNREADABLE} ({error.strerror})', folder)]
        return _Listing(folder, left_out=left_out, is_unreadable=True)


def _list_readable(
    root: str, folder: str, extensions: tuple[str, ...], above: frozenset
) -> _Listing:
    """Lists one folder, which raises OSError if it cannot be read."""
    images, subfolders, tars, left_out = [], [], [], []
    path = os.path.join(root, folder)
    status = os.stat(path)
    identity = status.st_dev, status.st_ino
    if identity in above:
        # A link leads back to a folder above.
        return _Listing(folder)
    is_settled = time.time_ns() - status.st_mtime_ns > _UNSETTLED_NS
    with os.scandir(path) as entries:
        for entry in entries:
            name = os.path.join(folder, entry.name)
            if is_hidden(entry.name):
                continue
            if _is(entry.is_dir):
                subfolders.append(name)
            elif entry.name.lower().endswith(extensions):
                if _is(entry.is_file):
                    images.append(name)
                else:
                    left_out.append((SPECIAL, name))
            elif not folder and is_tar(entry.name) and _is(entry.is_file):
                tars.append(name)
            elif is_archive(entry.name):
                left_out.append((ARCHIVES, name))
    date = status.st_mtime_ns if is_settled else -1
    return _Listing(folder, date, images, subfolders, tars, left_out, above | {identity})


def _is(test: Callable[[], bool]) -> bool:
    """Returns the result of a test of an entry; False if the test fails, as for a circular link."""
    try:
        return test()
    except OSError:
        return False


def _date(folder: str) -> int | None:
    """Returns when a folder last changed (ns), None if it cannot be read."""
    try:
        return os.stat(folder).st_mtime_ns
    except OSError:
        return None
