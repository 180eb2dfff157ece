"""A checksum over a whole checkpoint, stored in the file itself."""

from __future__ import annotations

import hashlib
import os
import struct
from pathlib import Path

_MARK = b'sha256:'
# The mark and 64 hexadecimal digits.
_LENGTH = len(_MARK) + 64
_CHUNK = 1 << 22


def add_digest(content: bytes) -> bytes:
    """Returns a zip archive, as ``torch.save`` writes it, with its SHA-256 as its comment.

    All programs that read zip archives, torch included, skip the comment. The digest covers every
    byte before it. The checksums inside a zip archive cover the content of each member, but neither
    its name nor the headers, and torch does not compare them.

    Args:
        content: the archive. Content that is not a zip archive, or has a comment already, is
            returned unchanged.
    """
    # An archive without a comment ends with a record of 22 bytes, whose last two hold the length of
    # the comment, 0.
    if content[-22:-18] != b'PK\5\6' or content[-2:] != b'\0\0':
        return content
    content = b''.join([memoryview(content)[:-2], struct.pack('<H', _LENGTH)])
    return b''.join([content, _MARK, hashlib.sha256(content).hexdigest().encode()])


def digest_matches(path: str | Path) -> bool | None:
    """Returns whether a file is as :func:`add_digest` wrote it; None for a file without digest."""
    with open(path, 'rb') as file:
        left = os.fstat(file.fileno()).st_size - _LENGTH
        if left < 0:
            return None
        file.seek(left)
        mark = file.read(_LENGTH)
        if not mark.startswith(_MARK):
            return None
        file.seek(0)
        digest = hashlib.sha256()
        while left > 0 and (chunk := file.read(min(_CHUNK, left))):
            digest.update(chunk)
            left -= len(chunk)
    return digest.hexdigest().encode() == mark[len(_MARK) :]
