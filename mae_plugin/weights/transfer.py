"""Transfers the content of a URL to a file, in several attempts that continue each other."""

from __future__ import annotations

import contextlib
import errno
import http.client
import socket
import time
from collections.abc import Iterator
from dataclasses import dataclass
from email.message import Message
from typing import BinaryIO
from urllib.error import HTTPError, URLError
from urllib.request import Request, urlopen

from mmengine.logging import print_log
from rich.progress import (
    BarColumn,
    DownloadColumn,
    Progress,
    TimeRemainingColumn,
    TransferSpeedColumn,
)

# Seconds without a byte after which an attempt ends.
TIMEOUT = 30.0
# Seconds between the attempts, of which there is one more than entries.
PAUSES = (1.0, 2.0, 4.0)
_CHUNK = 2**20


@dataclass(frozen=True)
class Version:
    """The version of the content at a URL, as far as the server describes it.

    Attributes:
        url: the URL.
        etag: its ``ETag``, empty if there is none.
        modified: its ``Last-Modified``, empty if there is none.
        size: length in bytes, None if unknown.
    """

    url: str
    etag: str = ''
    modified: str = ''
    size: int | None = None

    @classmethod
    def of(cls, url: str, headers: Message) -> Version:
        """Returns the version that the headers of a complete answer describe."""
        length = headers.get('Content-Length', '')
        size = int(length) if length.isdecimal() else None
        return cls(url, headers.get('ETag', ''), headers.get('Last-Modified', ''), size)

    def is_known(self) -> bool:
        """Returns whether another answer can be recognized as the same content."""
        return bool(self.etag or self.modified)

    def is_same(self, other: Version | None) -> bool:
        """Returns whether another answer described the same content."""
        if other is None or not self.is_known():
            return False
        return (self.etag, self.modified) == (other.etag, other.modified)


class IncompleteError(OSError):
    """Raised when a connection ends before the announced length."""


class UnchangedError(Exception):
    """Raised when the content at a URL is the version in the cache."""


def receive_all(url: str, content: BinaryIO, cached: Version | None) -> Version:
    """Writes the content of a URL to a file, in several attempts if necessary.

    Args:
        url: the URL.
        content: the file, open for reading and writing.
        cached: the version in the cache, if any.

    Returns:
        The version that was received.

    Raises:
        UnchangedError: if the server still has the version in the cache.
        OSError: if the last attempt fails, or another one is useless.
    """
    partial: Version | None = None
    for pause in (*PAUSES, None):
        try:
            with _open(url, cached, partial, content.tell()) as answer:
                # 206 continues the content; any other status starts it again.
                if partial is None or answer.status != 206:
                    content.seek(0)
                    content.truncate()
                    partial = Version.of(url, answer.headers)
                if partial.is_same(cached):
                    raise UnchangedError
                _receive(answer, content, partial.size)
            return partial
        except (OSError, http.client.HTTPException) as error:
            if pause is None or not _is_temporary(error, cached):
                raise
            print_log(f'{url}: {describe(error)}; trying again.', logger='current')
            time.sleep(pause)
    raise AssertionError('the last attempt returns or raises')


def describe(error: Exception) -> str:
    """Returns the reason of a failed attempt in a few words."""
    if isinstance(error, HTTPError):
        return f'the server answers {error.code} {error.reason}'
    reason = error.reason if isinstance(error, URLError) else error
    if isinstance(reason, TimeoutError):
        return f'the server sent nothing for {TIMEOUT:g} s'
    return str(reason) or type(reason).__name__


@contextlib.contextmanager
def _open(
    url: str, cached: Version | None, partial: Version | None, received: int
) -> Iterator[http.client.HTTPResponse]:
    """Yields the server's answer: the content, or the rest of it (status 206)."""
    # Compressed content would have another length than announced.
    headers = {'User-Agent': 'mae_plugin', 'Accept-Encoding': 'identity'}
    # A weak ETag, W/..., does not promise equal bytes.
    if partial and received and partial.is_known() and not partial.etag.startswith('W/'):
        headers |= {'Range': f'bytes={received}-', 'If-Range': partial.etag or partial.modified}
    elif cached and cached.etag:
        headers['If-None-Match'] = cached.etag
    elif cached and cached.modified:
        headers['If-Modified-Since'] = cached.modified
    try:
        answer = urlopen(Request(url, headers=headers), timeout=TIMEOUT)
    except HTTPError as error:
        error.close()
        if error.code == 304:
            raise UnchangedError from None
        raise
    with answer:
        begins = answer.headers.get('Content-Range', '').startswith(f'bytes {received}-')
        if answer.status == 206 and not begins:
            raise IncompleteError('the server sent another part of the file than was requested')
        yield answer


def _receive(answer: http.client.HTTPResponse, content: BinaryIO, size: int | None) -> None:
    """Appends an answer to a file; raises an error if it ends before the announced length."""
    columns = (
        'downloading',
        BarColumn(),
        DownloadColumn(),
        TransferSpeedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, transient=True) as progress:
        bar = progress.add_task('', total=size, completed=content.tell())
        while chunk := answer.read(_CHUNK):
            content.write(chunk)
            progress.advance(bar, len(chunk))
    if size is not None and content.tell() != size:
        raise IncompleteError(f'the connection ended after {content.tell():,} of {size:,} bytes')


def _is_temporary(error: Exception, cached: Version | None) -> bool:
    """Returns whether another attempt may succeed."""
    if isinstance(error, HTTPError):
        return error.code >= 500 or error.code in (408, 429)
    if isinstance(error, URLError):
        # Without a network, the copy in the cache is used at once.
        return not (cached and isinstance(error.reason, (socket.gaierror, ConnectionRefusedError)))
    return getattr(error, 'errno', None) not in (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO)
