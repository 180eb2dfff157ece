"""What is in a folder or an archive, and how to read it."""

from __future__ import annotations

import bz2
import functools
import gzip
import lzma
import os
import shutil
import zipfile
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

from ...utils.atomic_files import staged_file
from .entries import ARCHIVES, LABELS, LeftOut, class_folders, refuse_mixture
from .folder import scan_folder
from .open_files import OpenFiles, read_file
from .tars import scan_tar
from .zips import read_zip, scan_zip

_COMPRESSED = {b'\x1f\x8b': gzip.open, b'BZ': bz2.open, b'\xfd7': lzma.open}


class Contents(NamedTuple):
    """What is in a source.

    Attributes:
        images: name, place and label of each, in alphabetical order.
        folders: of the first level, whether or not they hold images.
        read: gives the content of the image at a place.
        left_out: what else is there.
    """

    images: list[tuple[str, object, str | None]]
    folders: Sequence[str]
    read: Callable[[object], bytes]
    left_out: LeftOut


def open_source(source: str, inside: str, extensions: tuple[str, ...], scratch: Path) -> Contents:
    """Finds all images in a folder, a zip file, or a tar file, compressed or not.

    Args:
        source: folder or archive.
        inside: folder within the source to take images from; their names count from there.
        extensions: endings of image files, in lower case.
        scratch: a folder in which a compressed tar file is unpacked to one that is not.

    Raises:
        ValueError: if it is no archive, a damaged one, or a folder that holds both images and tar
            files.
    """
    if os.path.isdir(source):
        root = os.path.join(source, inside) if inside else source
        scan = scan_folder(root, extensions)
        refuse_mixture(root, scan.images, scan.tars)
        for name in scan.tars:
            scan.left_out.add(ARCHIVES, name)
        images = [(name, os.path.join(root, name), None) for name in scan.images]
        return Contents(
            images, class_folders((), [*scan.dates, *scan.unreadable]), read_file, scan.left_out
        )
    if zipfile.is_zipfile(source):
        scan, read = scan_zip(source, extensions), functools.partial(read_zip, source)
    else:
        path = _uncompressed(source, scratch / 'source.tar')
        scan, read = scan_tar(path, extensions), functools.partial(_read_tar, OpenFiles(), path)
    for fault in scan.label_faults:
        scan.left_out.add(LABELS, fault)
    prefix = f'{inside}/' if inside else ''
    inside = [
        (name.removeprefix(prefix), *rest) for name, *rest in scan.images if name.startswith(prefix)
    ]
    folders = [name.removeprefix(prefix) for name in scan.folders if name.startswith(prefix)]
    return Contents(sorted(inside), class_folders((), folders), read, scan.left_out)


def _read_tar(files: OpenFiles, path: str, place: tuple[int, int]) -> bytes:
    return files.read(path, *place)


def _uncompressed(source: str, target: Path) -> str:
    """A tar file to read from any place in: the source, or what it holds if it is compressed,
    written beside.
    """
    with open(source, 'rb') as file:
        opener = _COMPRESSED.get(file.read(2))
    if opener is None or target.is_file():
        return source if opener is None else str(target)
    try:
        with staged_file(target) as part, opener(source) as packed, open(part, 'wb') as file:
            shutil.copyfileobj(packed, file, 2**20)
    # What gzip, bz2 and lzma raise; other errors of the system have a number.
    except (EOFError, zlib.error, lzma.LZMAError, OSError) as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise
        raise ValueError(
            f'{source} is cut off or damaged ({error}); unpack what can be unpacked'
        ) from error
    return str(target)
