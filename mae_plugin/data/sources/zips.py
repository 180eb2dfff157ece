"""Scans a zip file for images and labels, and reads its members."""

from __future__ import annotations

import functools
import os
import posixpath
import stat
import zipfile

from .archives import ArchiveMembers, ArchiveScan


def scan_zip(path: str, extensions: tuple[str, ...]) -> ArchiveScan:
    """Finds all images in a zip file, and their labels; the place of an image is its name."""
    members = ArchiveMembers(extensions, functools.partial(read_zip, path))
    for member in _zip(path, os.getpid()).infolist():
        # The upper half of external_attr is the mode of Unix.
        mode = member.external_attr >> 16
        if member.is_dir():
            members.add_folder(member.filename)
        elif stat.S_ISLNK(mode):
            target = read_zip(path, member.filename).decode(errors='surrogateescape')
            target = posixpath.join(posixpath.dirname(member.filename), target)
            members.add_link(member.filename, target)
        elif stat.S_IFMT(mode) in (0, stat.S_IFREG):
            members.add_file(member.filename, member.filename)
        else:
            members.add_special(member.filename)
    return members.scan()


def read_zip(path: str, name: str) -> bytes:
    """Reads a member of a zip file."""
    return _zip(path, os.getpid()).read(name)


@functools.lru_cache(maxsize=1)
def _zip(path: str, process: int) -> zipfile.ZipFile:
    """Opens a zip file; each process opens its own, because processes cannot share a position."""
    return zipfile.ZipFile(path)
