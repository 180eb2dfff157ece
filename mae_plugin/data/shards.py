"""Tar files of images, as WebDataset lays them out, read in place without unpacking."""

from __future__ import annotations

import json
import os
import tarfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import torch
from rich.progress import track

from .folder import IMAGE_EXTENSIONS
from .index import Index, Names, cached_index

_COLUMNS = 'shard', 'offset', 'size', 'label'


def find_shards(source: str) -> list[str]:
    """The tar files that a source consists of: itself, or all those in the folder, if it holds any."""
    if os.path.isfile(source):
        return [os.path.abspath(source)]
    return sorted(str(path.absolute()) for path in Path(source).glob('*.tar'))


def index_shards(
    paths: list[str], extensions: tuple[str, ...] = IMAGE_EXTENSIONS, index_dir: str | None = None
) -> Index:
    """Where every image lies in tar files, in the order of files and of images in them.

    A member ``….cls`` (a class) or ``….json`` (with the class as ``label`` or ``cls``) of the same name up to the first
    dot gives an image's label.

    Args:
        paths: tar files, not compressed.
        extensions: endings of image files, in lower case.
        index_dir: where indices are kept (see :func:`cached_index`).

    Returns:
        An index with ``text`` and ``ends``, the :class:`Names` of the images; ``shard``, ``offset`` and ``size`` of
        each; ``label``, -1 where it has none; and the notes ``labels``, the labels that those numbers stand for, and
        ``classes``, the first-level folders, as for :func:`index_folder`.

    Raises:
        ValueError: if one of them is no tar file, or compressed.
    """

    def make() -> Index:
        states = [_state(path) for path in paths]
        with ThreadPoolExecutor(min(8, len(paths))) as pool:
            scans = pool.map(lambda path: scan_shard(path, extensions), paths)
            members = [
                (shard, *member)
                for shard, scan in enumerate(track(scans, 'indexing shards', total=len(paths), transient=True))
                for member in scan
            ]
        labels = sorted({label for *_, label in members if label is not None})
        numbers = {label: number for number, label in enumerate(labels)}
        rows = [(shard, offset, size, numbers.get(label, -1)) for shard, _, offset, size, label in members]
        columns = torch.tensor(rows, dtype=torch.long).reshape(-1, 4).unbind(1)
        arrays = {name: column.clone() for name, column in zip(_COLUMNS, columns, strict=True)}
        arrays['text'], arrays['ends'] = Names.arrays(name for _, name, *_ in members)
        classes = {name.partition('/')[0] if '/' in name else '' for _, name, *_ in members}
        return Index(arrays, dict(states=states, labels=labels, classes=sorted(classes)))

    def is_current(index: Index) -> bool:
        return index.notes['states'] == [_state(path) for path in paths]

    return cached_index(f'{" ".join(paths)} ({" ".join(sorted(extensions))})', index_dir, is_current, make)


def read_member(files: dict[str, int], path: str, offset: int, size: int) -> bytes:
    """Reads a part of a file, which stays open in ``files``; forks may share them, as nothing is sought."""
    if path not in files:
        files[path] = os.open(path, os.O_RDONLY)
    data = os.pread(files[path], size, offset)
    if len(data) < size:
        raise ValueError(f'{path} ends before byte {offset + size}; it was cut off after it had been indexed')
    return data


def _state(path: str) -> list:
    status = os.stat(path)
    return [path, status.st_size, status.st_mtime_ns]


def scan_shard(path: str, extensions: tuple[str, ...] = IMAGE_EXTENSIONS) -> list[tuple[str, int, int, str | None]]:
    """Name, offset, size and label of every image in a tar file."""
    images, labels = [], {}
    try:
        with tarfile.open(path, 'r:') as file:
            for member in file:
                name = member.name.removeprefix('./')
                base = os.path.basename(name)
                if not member.isreg() or base.startswith('.'):
                    continue
                key, ending = member_key(name), base.partition('.')[2]
                if name.lower().endswith(extensions):
                    images.append((name, member.offset_data, member.size, key))
                elif ending in ('cls', 'json'):
                    labels[key] = _label(file.extractfile(member).read(), ending)
                # tarfile keeps every member that it has seen.
                file.members = []
    except tarfile.TarError as error:
        raise ValueError(
            f'{path} cannot be read as an uncompressed tar file ({error}); unpack or prepare it'
        ) from error
    return [(name, offset, size, labels.get(key)) for name, offset, size, key in images]


def member_key(name: str) -> str:
    """What an image and its label have in common: the path up to the first dot of the file's name."""
    folder, base = os.path.split(name)
    return os.path.join(folder, base.partition('.')[0])


def _label(content: bytes, ending: str) -> str | None:
    """The label in a member, None if there is none."""
    try:
        if ending == 'cls':
            return content.decode().strip()
        notes = json.loads(content)
    # Of no interest where images are read without labels.
    except ValueError:
        return None
    label = notes.get('label', notes.get('cls')) if isinstance(notes, dict) else None
    return None if label is None else str(label)
