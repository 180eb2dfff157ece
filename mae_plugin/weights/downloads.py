"""Downloads checkpoints into a cache that knows each file by its whole URL and notices when it
changes.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import http.client
import json
import os
import re
import socket
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from email.message import Message
from pathlib import Path
from typing import BinaryIO
from urllib.error import HTTPError, URLError
from urllib.parse import urldefrag, urlsplit
from urllib.request import Request, urlopen

import torch
from mmengine.dist import barrier, get_rank
from mmengine.logging import print_log
from rich.progress import (
    BarColumn,
    DownloadColumn,
    Progress,
    TimeRemainingColumn,
    TransferSpeedColumn,
)

from ..utils.atomic_files import staged_file, write_atomically
from ..utils.home import temporary_cache
from ..utils.locks import waiting_lock

# Seconds without a byte after which a server counts as silent.
TIMEOUT = 30.0
# Seconds between the attempts, of which there is one more than entries.
PAUSES = (1.0, 2.0, 4.0)
_CHUNK = 2**20
# How torch.hub and mmpretrain name files: the first eight or more digits of the SHA-256. Eight
# decimals are a date.
_HASH = re.compile(r'-(?=[0-9a-f]*[a-f])([0-9a-f]{8,64})\.')


@dataclass(frozen=True)
class Version:
    """What a server says about the content at a URL.

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
        """Returns whether another answer was about the same content."""
        known = other is not None and self.is_known()
        return known and (self.etag, self.modified) == (other.etag, other.modified)


class _IncompleteError(OSError):
    """Raised when a connection ends before the announced length."""


class _UnchangedError(Exception):
    """Raised when the server has what is in the cache."""


def fetch(url: str, folder: str | Path | None = None) -> str:
    """Returns the path of a local copy of the file at an http(s) URL, after downloading it if
    necessary.

    A copy is used again for the same URL as long as the server says that the content is the same;
    without an answer from the server, it is used with a line in the log. The first rank downloads
    while the others wait.

    Args:
        url: the URL.
        folder: folder of the cache; ``checkpoints`` in ``torch.hub.get_dir()`` if None.

    Raises:
        ValueError: if the content does not have the hash that is part of the file's name.
        URLError: if the content could not be downloaded, and there is no copy.
    """
    first = get_rank() == 0
    if not first:
        barrier()
    try:
        return str(_fetch(urldefrag(url).url, _cache_folder(folder), revalidate=first))
    finally:
        if first:
            barrier()


def _cache_folder(folder: str | Path | None) -> Path:
    """Returns the folder of the cache, a temporary one if it cannot be written."""
    folder = Path(folder or os.path.join(torch.hub.get_dir(), 'checkpoints'))
    with contextlib.suppress(OSError):
        folder.mkdir(parents=True, exist_ok=True)
    if os.access(folder, os.W_OK):
        return folder
    other = temporary_cache()
    print_log(f'Downloads are kept in {other}, as {folder} cannot be written.', logger='current')
    return other


def _fetch(url: str, folder: Path, revalidate: bool) -> Path:
    name = os.path.basename(urlsplit(url).path) or 'checkpoint.pth'
    path = folder / f'{hashlib.sha256(url.encode()).hexdigest()[:16]}-{name[-150:]}'

    def say_wait(holder: str) -> None:
        print_log(f'Waiting for {holder}, which is downloading {url}.', logger='current')

    with contextlib.ExitStack() as stack:
        # Without locks, two processes download the same content, each under a name of its own.
        with contextlib.suppress(OSError):
            stack.enter_context(waiting_lock(path.with_name(f'{path.name}.lock'), say_wait))
        version = _read_version(path, url)
        if version and (not revalidate or _HASH.search(name)):
            return path
        try:
            _download(url, path, version)
        except _UnchangedError:
            pass
        except (OSError, http.client.HTTPException) as error:
            if version is None:
                raise URLError(f'{url}: {_describe(error)}') from None
            print_log(
                f'Using the copy {path} of {url}, as it could not be checked ({_describe(error)}).',
                'current',
            )
    return path


def _read_version(path: Path, url: str) -> Version | None:
    """Returns the version of the copy at ``path``, or None if there is none that is whole."""
    try:
        version = Version(**json.loads(_note_of(path).read_text()))
        whole = version.url == url and path.stat().st_size == version.size
    except (OSError, ValueError, TypeError):
        return None
    return version if whole else None


def _note_of(path: Path) -> Path:
    return path.with_name(f'{path.name}.json')


def _download(url: str, path: Path, cached: Version | None) -> None:
    """Downloads what is at a URL to ``path``; raises _UnchangedError if ``cached`` is still
    current.
    """
    with staged_file(path) as part, open(part, 'wb+') as content:
        version = _receive_all(url, content, cached)
        _check_hash(content, path.name, url)
        size = content.seek(0, os.SEEK_END)
        # The note of a former version must not stand for this one.
        _note_of(path).unlink(missing_ok=True)
    write_atomically(_note_of(path), json.dumps(asdict(version) | dict(size=size)).encode())


def _receive_all(url: str, content: BinaryIO, cached: Version | None) -> Version:
    """Writes what is at a URL to a file, in several attempts if necessary; returns its version."""
    partial: Version | None = None
    for pause in (*PAUSES, None):
        try:
            with _open(url, cached, partial, content.tell()) as answer:
                if answer.status != 206:
                    content.seek(0)
                    content.truncate()
                    partial = Version.of(url, answer.headers)
                if partial.is_same(cached):
                    raise _UnchangedError
                _receive(answer, content, partial.size)
            return partial
        except (OSError, http.client.HTTPException) as error:
            if pause is None or not _is_passing(error, cached):
                raise
            print_log(f'{url}: {_describe(error)}; trying again.', logger='current')
            time.sleep(pause)
    raise AssertionError('the last attempt returns or raises')


@contextlib.contextmanager
def _open(
    url: str, cached: Version | None, partial: Version | None, received: int
) -> Iterator[http.client.HTTPResponse]:
    """Yields the server's answer: the content, or the rest of it (status 206)."""
    # A server that compressed the content would announce another length.
    headers = {'User-Agent': 'mae_plugin', 'Accept-Encoding': 'identity'}
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
            raise _UnchangedError from None
        raise
    with answer:
        begins = answer.headers.get('Content-Range', '').startswith(f'bytes {received}-')
        if answer.status == 206 and not begins:
            raise _IncompleteError('the server sent another part of the file than it was asked for')
        yield answer


def _receive(answer: http.client.HTTPResponse, content: BinaryIO, size: int | None) -> None:
    """Appends an answer to a file, and raises an error if it ends before the announced length."""
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
        raise _IncompleteError(f'the connection ended after {content.tell():,} of {size:,} bytes')


def _check_hash(content: BinaryIO, name: str, url: str) -> None:
    """Raises ValueError if a file's name contains a hash that its content does not have."""
    if wanted := _HASH.search(name):
        content.seek(0)
        digest = hashlib.sha256()
        while chunk := content.read(_CHUNK):
            digest.update(chunk)
        found = digest.hexdigest()
        if not found.startswith(wanted[1]):
            raise ValueError(
                f'{url} is damaged, or not what its name says: its SHA-256 begins with '
                f'{found[:8]}, not {wanted[1]}'
            )


def _is_passing(error: Exception, cached: Version | None) -> bool:
    """Returns whether another attempt may succeed."""
    if isinstance(error, HTTPError):
        return error.code >= 500 or error.code in (408, 429)
    if isinstance(error, URLError):
        # Offline, a copy is as good as it gets.
        return not (cached and isinstance(error.reason, (socket.gaierror, ConnectionRefusedError)))
    return getattr(error, 'errno', None) not in (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO)


def _describe(error: Exception) -> str:
    """Returns what went wrong, in a few words."""
    if isinstance(error, HTTPError):
        return f'the server answers {error.code} {error.reason}'
    reason = error.reason if isinstance(error, URLError) else error
    if isinstance(reason, TimeoutError):
        return f'the server sent nothing for {TIMEOUT:g} s'
    return str(reason) or type(reason).__name__
