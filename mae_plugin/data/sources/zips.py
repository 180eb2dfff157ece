"""What is in a zip file."""

from __future__ import annotations

import functools
import os
import posixpath
import stat
import zipfile

from .archives import ArchiveMembers, ArchiveScan


def scan_zip(path: str, extensions: tuple[str, ...]) -> ArchiveScan:
    """Finds all images in a zip file, and their labels; the place of an image is its name as
    zipfile knows it.
    """
    members = ArchiveMembers(extensions, functools.partial(read_zip, path))
    for member in _zip(path, os.getpid()).infolist():
        mode = member.external_attr >> 16
        if member.is_dir():
            members.add_folder(member.filename)
        elif stat.S_ISLNK(mode):
            target = read_zip(path, member.filename).decode(errors='surrogateescape')
            members.add_link(
                member.filename, posixpath.join(posixpath.dirname(member.filename), target)
            )
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
    # An open file and its position cannot be shared by processes.
    return zipfile.ZipFile(path)
