"""Lists the images of a folder or an archive of any supported kind, and reads them."""

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
from typing import Any, NamedTuple

from ...utils.atomic_files import staged_file
from .entries import ARCHIVES, LABELS, LeftOut, class_folders, refuse_mixture
from .folder import scan_folder
from .open_files import OpenFiles, read_file
from .tars import scan_tar
from .zips import read_zip, scan_zip

# Decompressors by the first two bytes of a file.
_COMPRESSED: dict[bytes, Callable[[str], Any]] = {
    b'\x1f\x8b': gzip.open,
    b'BZ': bz2.open,
    b'\xfd7': lzma.open,
}


class Contents(NamedTuple):
    """Content of a source.

    Attributes:
        images: name, place and label of each image, in alphabetical order.
        folders: first-level folders, with or without images.
        read: returns the content of the image at a place.
        left_out: other entries that could hold images.
    """

    images: Sequence[tuple[str, Any, str | None]]
    folders: Sequence[str]
    read: Callable[[Any], bytes]
    left_out: LeftOut


def open_source(source: str, inside: str, extensions: tuple[str, ...], scratch: Path) -> Contents:
    """Finds all images in a folder, a zip file, or a tar file, compressed or not.

    Args:
        source: folder or archive.
        inside: folder within the source to take images from; image names are relative to it.
        extensions: file name extensions of images, in lower case.
        scratch: folder into which a compressed tar file is decompressed.

    Raises:
        ValueError: if the source is not an archive, a damaged one, or a folder that holds both
            images and tar files.
    """
    if os.path.isdir(source):
        return _open_folder(os.path.join(source, inside) if inside else source, extensions)
    if zipfile.is_zipfile(source):
        scan = scan_zip(source, extensions)
        read = functools.partial(read_zip, source)
    else:
        path = _uncompressed(source, scratch / 'source.tar')
        scan = scan_tar(path, extensions)
        read = functools.partial(_read_tar, OpenFiles(), path)
    for error in scan.label_errors:
        scan.left_out.add(LABELS, error)
    prefix = f'{inside}/' if inside else ''
    images = [
        (name.removeprefix(prefix), place, label)
        for name, place, label in scan.images
        if name.startswith(prefix)
    ]
    folders = [name.removeprefix(prefix) for name in scan.folders if name.startswith(prefix)]
    return Contents(sorted(images), class_folders((), folders), read, scan.left_out)


def _open_folder(root: str, extensions: tuple[str, ...]) -> Contents:
    """Finds all images in a folder."""
    scan = scan_folder(root, extensions)
    refuse_mixture(root, scan.images, scan.tars)
    for name in scan.tars:
        scan.left_out.add(ARCHIVES, name)
    images = [(name, os.path.join(root, name), None) for name in scan.images]
    folders = class_folders((), [*scan.dates, *scan.unreadable])
    return Contents(images, folders, read_file, scan.left_out)


def _read_tar(files: OpenFiles, path: str, place: tuple[int, int]) -> bytes:
    """Reads a member of a tar file at (offset, size)."""
    return files.read(path, *place)


def _uncompressed(source: str, target: Path) -> str:
    """Returns a seekable tar file: the source, or ``target`` with its decompressed content."""
    with open(source, 'rb') as file:
        opener = _COMPRESSED.get(file.read(2))
    if opener is None:
        return source
    if target.is_file():
        return str(target)
    try:
        with staged_file(target) as part, opener(source) as packed, open(part, 'wb') as file:
            shutil.copyfileobj(packed, file, 2**20)
    except (EOFError, zlib.error, lzma.LZMAError, OSError) as error:
        # gzip, bz2 and lzma also raise OSError for damaged files, but without a number.
        if isinstance(error, OSError) and error.errno is not None:
            raise
        raise ValueError(
            f'{source} is cut off or damaged ({error}); unpack what can be unpacked'
        ) from error
    return str(target)
