"""Scans a tar file for images and labels, and checks how it ends."""

from __future__ import annotations

import os
import posixpath
import tarfile
from collections.abc import Iterator

from .archives import ArchiveMembers, ArchiveScan
from .entries import EARLY_END, IMAGE_EXTENSIONS

# Bytes of a header, and of the units to which tar files are padded.
_BLOCK, _RECORD = 512, 10240


def scan_tar(path: str, extensions: tuple[str, ...] = IMAGE_EXTENSIONS) -> ArchiveScan:
    """Finds all images in a tar file, and their labels.

    A tar file that does not end with the end mark is reported among the entries left out, because
    members may be missing.

    Returns:
        The images in the order of their places, (offset, size).

    Raises:
        ValueError: if the file is not a tar file, or is compressed.
    """
    if not os.path.isfile(path):
        raise ValueError(f'{path} is not a regular file')
    try:
        with tarfile.open(path, 'r:') as file:
            return _scan(file, extensions)
    except tarfile.TarError as error:
        raise ValueError(
            f'{path} cannot be read as an uncompressed tar file ({error}); unpack or prepare it'
        ) from error


def _scan(file: tarfile.TarFile, extensions: tuple[str, ...]) -> ArchiveScan:
    """Scans an open tar file."""
    descriptor = file.fileobj.fileno()  # type: ignore[attr-defined]  # the file is on disk
    length = os.fstat(descriptor).st_size
    members = ArchiveMembers(extensions, lambda place: os.pread(descriptor, place[1], place[0]))
    for member in _members(file, length, members):
        if member.isdir():
            members.add_folder(member.name)
        elif member.isreg() and not member.issparse():
            # A truncated file may end within the last member.
            if member.offset_data + member.size <= length:
                members.add_file(member.name, (member.offset_data, member.size))
        elif member.islnk():
            members.add_link(member.name, member.linkname)
        elif member.issym():
            # Symbolic links are relative to the folder of the link.
            target = posixpath.join(posixpath.dirname(member.name), member.linkname)
            members.add_link(member.name, target)
        else:
            members.add_special(member.name)
    scan = members.scan()
    scan.images.sort(key=lambda image: image[1])
    return scan


def _members(
    file: tarfile.TarFile, length: int, members: ArchiveMembers
) -> Iterator[tarfile.TarInfo]:
    """Yields the members up to the end, and records an end that is not the end mark."""
    broken = ''
    try:
        while (member := file.next()) is not None:
            # tarfile would keep every member in memory.
            file.members = []  # type: ignore[attr-defined]  # typeshed omits the attribute
            if file.offset <= member.offset:
                raise ValueError('a size below 0')
            yield member
    # tarfile raises these for damaged headers after the first.
    except (tarfile.TarError, ValueError, OverflowError, EOFError, RecursionError) as error:
        broken = f' ({error})'
    if early := _early_end(file, length, broken):
        where = f'at byte {file.offset} of {length}, after {members.number} files'
        example = f'{os.path.basename(str(file.name))}: {early} {where}'
        members.left_out.add(EARLY_END, example)


def _early_end(file: tarfile.TarFile, length: int, broken: str) -> str | None:
    """Returns what is wrong with the end at which tarfile stopped; None for a proper end mark."""
    offset = file.offset
    if offset > length:
        return 'cut off within a member'
    file.fileobj.seek(offset)
    block = file.fileobj.read(_BLOCK)
    if len(block) < _BLOCK:
        return 'cut off'
    if broken or block.strip(b'\0'):
        return f'a damaged header{broken}'
    while rest := file.fileobj.read(2**20):
        if rest.strip(b'\0'):
            return 'more data after an end mark'
    # The end mark is two blocks of zeros, padded to a whole record.
    end = -(-(offset + 2 * _BLOCK) // _RECORD) * _RECORD
    return 'nothing but zeros' if length > end else None
