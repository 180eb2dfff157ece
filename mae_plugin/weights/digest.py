"""A checksum over the whole of a checkpoint, kept in the file itself."""

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
    """Returns a zip archive, such as ``torch.save`` makes, with its SHA-256 as the archive's
    comment.

    Every program that reads zip archives, torch included, skips the comment. The digest covers
    every byte before it. The checksums within a zip archive cover each member's content, but
    neither its name nor the headers, and torch does not compare them. Anything that is not a zip
    archive, or has a comment already, is returned as it is.
    """
    # The archive ends with its comment's length (2 bytes), which is 0, when the last record begins
    # 22 bytes earlier.
    if content[-22:-18] != b'PK\5\6' or content[-2:] != b'\0\0':
        return content
    content = b''.join([memoryview(content)[:-2], struct.pack('<H', _LENGTH)])
    return b''.join([content, _MARK, hashlib.sha256(content).hexdigest().encode()])


def digest_matches(path: str | Path) -> bool | None:
    """Returns whether a file's content is what :func:`add_digest` saw; None for a file without a
    digest.
    """
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
