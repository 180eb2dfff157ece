"""Index of tar files of images in the layout of WebDataset, which are read without unpacking."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor

import torch
from rich.progress import track

from .entries import IMAGE_EXTENSIONS, LeftOut, class_folders, is_tar, refuse_mixture
from .folder import scan_folder
from .index import Index, Names, cached_index
from .tars import scan_tar

_COLUMNS = 'shard', 'offset', 'size', 'label'


def find_shards(
    source: str, extensions: tuple[str, ...] = IMAGE_EXTENSIONS
) -> tuple[list[str], LeftOut]:
    """Returns the tar files of a source, with the entries that are left out.

    They are the source itself, or all tar files in the folder.

    Raises:
        ValueError: if the source is a FIFO or a device, or a folder that holds both images and tar
            files.
    """
    if not os.path.isdir(source):
        if os.path.exists(source) and not os.path.isfile(source):
            raise ValueError(f'{source} is neither a folder nor a regular file')
        return [os.path.abspath(source)] if os.path.isfile(source) else [], LeftOut()
    if not any(map(is_tar, os.listdir(source))):
        return [], LeftOut()
    scan = scan_folder(source, extensions)
    refuse_mixture(source, scan.images, scan.tars)
    if not scan.tars:
        return [], LeftOut()
    return [os.path.join(os.path.abspath(source), name) for name in scan.tars], scan.left_out


def index_shards(
    paths: list[str], extensions: tuple[str, ...] = IMAGE_EXTENSIONS, index_dir: str | None = None
) -> Index:
    """Returns the index of the images in tar files, in the order of files and of members.

    A member ``….cls`` (a class) or ``….json`` (with the class as ``label`` or ``cls``) holds the
    label of the image with the same name up to the first dot.

    Args:
        paths: tar files, not compressed.
        extensions: file name extensions of images, in lower case.
        index_dir: folder of the indices (see :func:`cached_index`).

    Returns:
        An index with ``text`` and ``ends``, the :class:`Names` of the images; ``shard``, ``offset``
        and ``size`` of each image; and ``label``, -1 without a label. Its notes are ``labels``, the
        label of each number; ``label_errors``, the reason why the first invalid label is invalid;
        and ``classes``, ``empty_classes`` and ``left_out`` as in :func:`.folder.index_folder`.

    Raises:
        ValueError: if one of the files is not a tar file, or is compressed.
    """

    def make() -> Index:
        """Scans the tar files."""
        # Before the scan, so that a file that changes during the scan is scanned again.
        states = [_state(path) for path in paths]
        with ThreadPoolExecutor(min(8, len(paths))) as pool:
            results = pool.map(lambda path: scan_tar(path, extensions), paths)
            scans = list(track(results, 'indexing shards', total=len(paths), transient=True))
        members = []
        for shard, scan in enumerate(scans):
            members += [(shard, name, *place, label) for name, place, label in scan.images]
        names = [name for _, name, *_ in members]
        labels = sorted({label for *_, label in members if label is not None})
        numbers = {label: number for number, label in enumerate(labels)}
        rows = [
            (shard, offset, size, numbers.get(label, -1))
            for shard, _, offset, size, label in members
        ]
        columns = torch.tensor(rows, dtype=torch.long).reshape(-1, 4).unbind(1)
        arrays = {name: column.clone() for name, column in zip(_COLUMNS, columns, strict=True)}
        arrays['text'], arrays['ends'] = Names.arrays(names)
        classes = class_folders(names, set().union(*(scan.folders for scan in scans)))
        label_errors = [error for scan in scans for error in scan.label_errors]
        left_out = LeftOut(note for scan in scans for note in scan.left_out.notes())
        notes = dict(
            states=states,
            labels=labels,
            label_errors=label_errors[:1],
            classes=classes,
            empty_classes=sorted(set(classes) - set(class_folders(names, ()))),
            left_out=left_out.notes(),
        )
        return Index(arrays, notes)

    def is_current(index: Index) -> bool:
        """Returns whether the tar files have the same sizes and dates."""
        return index.notes['states'] == [_state(path) for path in paths]

    key = f'{" ".join(paths)} ({" ".join(sorted(extensions))})'
    return cached_index(key, index_dir, is_current, make)


def _state(path: str) -> list:
    """Returns path, size and date of a file, by which a change is detected."""
    status = os.stat(path)
    return [path, status.st_size, status.st_mtime_ns]
