"""A folder tree of images: scanned once, in parallel, and again when it has changed."""

from __future__ import annotations

import os
import time
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait

import torch
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from .index import Index, Names, cached_index

IMAGE_EXTENSIONS = ('.jpg', '.jpeg', '.png', '.webp', '.bmp', '.tif', '.tiff', '.ppm', '.pgm', '.gif')

# A folder that changed within this time before it was read may change again without a later date.
_UNSETTLED_NS = 2 * 10**9


def index_folder(root: str, extensions: tuple[str, ...] = IMAGE_EXTENSIONS, index_dir: str | None = None) -> Index:
    """The images in a folder tree, in alphabetical order of their paths.

    An index that was made before is used again as long as all folders in the tree have the dates that they had: a
    file that comes or goes changes its folder's. Files and folders whose names begin with a dot are left out, links are
    followed.

    Args:
        root: the folder.
        extensions: endings of image files, in lower case.
        index_dir: where indices are kept (see :func:`cached_index`).

    Returns:
        An index with ``text`` and ``ends``, the :class:`Names` of the images as paths below ``root``, and the note
        ``classes``, the first-level folders that hold images, with ``''`` if some lie in no folder.

    Raises:
        FileNotFoundError: if there is no such folder.
    """
    root = os.path.abspath(root)
    if not os.path.isdir(root):
        raise FileNotFoundError(f'the folder of images {root} does not exist')

    def make() -> Index:
        files, dates = scan_folder(root, extensions)
        text, ends = Names.arrays(files)
        folder_text, folder_ends = Names.arrays(dates)
        arrays = dict(text=text, ends=ends, folder_text=folder_text, folder_ends=folder_ends)
        arrays['dates'] = torch.tensor(list(dates.values()))
        classes = {name.partition('/')[0] if '/' in name else '' for name in files}
        return Index(arrays, dict(classes=sorted(classes)))

    def is_current(index: Index) -> bool:
        names = Names(index.arrays['folder_text'], index.arrays['folder_ends'])
        folders = [os.path.join(root, names[i]) for i in range(len(names))]
        with ThreadPoolExecutor(16) as pool:
            dates = pool.map(_date, folders)
            return all(date == known for date, known in zip(dates, index.arrays['dates'].tolist(), strict=True))

    return cached_index(f'{root} ({" ".join(sorted(extensions))})', index_dir, is_current, make)


def scan_folder(root: str, extensions: tuple[str, ...] = IMAGE_EXTENSIONS) -> tuple[list[str], dict[str, int]]:
    """Lists images, and folders with their dates, by path below root."""
    files: list[str] = []
    dates: dict[str, int] = {}
    columns = SpinnerColumn(), TextColumn('{task.completed:,} images in {task.description}'), TimeElapsedColumn()
    with ThreadPoolExecutor(16) as pool, Progress(*columns, transient=True) as progress:
        task = progress.add_task(root, total=None)
        pending: set[Future] = {pool.submit(_list, root, '', extensions, frozenset())}
        while pending:
            done, pending = wait(pending, return_when=FIRST_COMPLETED)
            for folder, date, images, subfolders, above in (future.result() for future in done):
                dates[folder] = date
                files += images
                pending |= {pool.submit(_list, root, name, extensions, above) for name in subfolders}
            progress.update(task, completed=len(files))
    return sorted(files), dates


def _list(root: str, folder: str, extensions: tuple[str, ...], above: frozenset) -> tuple:
    """The folder, its date, its images and subfolders, and what identifies it and the folders above it."""
    images, subfolders = [], []
    path = os.path.join(root, folder)
    status = os.stat(path)
    identity = status.st_dev, status.st_ino
    if identity in above:
        # A link that leads in a circle.
        return folder, status.st_mtime_ns, [], [], above
    settled = time.time_ns() - status.st_mtime_ns > _UNSETTLED_NS
    with os.scandir(path) as entries:
        for entry in entries:
            if entry.name.startswith('.'):
                continue
            if entry.is_dir():
                subfolders.append(os.path.join(folder, entry.name))
            elif entry.name.lower().endswith(extensions):
                images.append(os.path.join(folder, entry.name))
    return folder, status.st_mtime_ns if settled else -1, images, subfolders, above | {identity}


def _date(folder: str) -> int | None:
    try:
        return os.stat(folder).st_mtime_ns
    except OSError:
        return None
