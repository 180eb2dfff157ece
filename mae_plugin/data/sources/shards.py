"""Tar files of images, as WebDataset lays them out, read in place without unpacking."""

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
    """The tar files that a source consists of: itself, or all those in the folder, if it holds any;
    and what is not.

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
    """Where every image lies in tar files, in the order of files and of images in them.

    A member ``….cls`` (a class) or ``….json`` (with the class as ``label`` or ``cls``) of the same
    name up to the first dot gives an image's label.

    Args:
        paths: tar files, not compressed.
        extensions: endings of image files, in lower case.
        index_dir: where indices are kept (see :func:`cached_index`).

    Returns:
        An index with ``text`` and ``ends``, the :class:`Names` of the images; ``shard``, ``offset``
        and ``size`` of each; ``label``, -1 where it has none; and the notes ``labels``, the labels
        that those numbers stand for, ``label_faults``, what is wrong with the first label that is
        not valid, and ``classes``, ``empty_classes`` and ``left_out`` as for :func:`.folder.index_folder`.

    Raises:
        ValueError: if one of them is no tar file, or compressed.
    """

    def make() -> Index:
        states = [_state(path) for path in paths]
        with ThreadPoolExecutor(min(8, len(paths))) as pool:
            results = pool.map(lambda path: scan_tar(path, extensions), paths)
            scans = list(track(results, 'indexing shards', total=len(paths), transient=True))
        members = [
            (shard, name, *place, label)
            for shard, scan in enumerate(scans)
            for name, place, label in scan.images
        ]
        labels = sorted({label for *_, label in members if label is not None})
        numbers = {label: number for number, label in enumerate(labels)}
        rows = [
            (shard, offset, size, numbers.get(label, -1))
            for shard, _, offset, size, label in members
        ]
        columns = torch.tensor(rows, dtype=torch.long).reshape(-1, 4).unbind(1)
        arrays = {name: column.clone() for name, column in zip(_COLUMNS, columns, strict=True)}
        arrays['text'], arrays['ends'] = Names.arrays(name for _, name, *_ in members)
        folders = set().union(*(scan.folders for scan in scans))
        classes = class_folders((name for _, name, *_ in members), folders)
        empty = sorted({*classes} - {*class_folders((name for _, name, *_ in members), ())})
        faults = [fault for scan in scans for fault in scan.label_faults]
        left_out = LeftOut(note for scan in scans for note in scan.left_out.notes())
        notes = dict(
            states=states,
            labels=labels,
            label_faults=faults[:1],
            classes=classes,
            empty_classes=empty,
        )
        return Index(arrays, {**notes, 'left_out': left_out.notes()})

    def is_current(index: Index) -> bool:
        return index.notes['states'] == [_state(path) for path in paths]

    return cached_index(
        f'{" ".join(paths)} ({" ".join(sorted(extensions))})', index_dir, is_current, make
    )


def _state(path: str) -> list:
    status = os.stat(path)
    return [path, status.st_size, status.st_mtime_ns]
