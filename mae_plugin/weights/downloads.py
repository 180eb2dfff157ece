"""Downloads checkpoints into a cache, which identifies a file by its URL and detects changes."""

from __future__ import annotations

import contextlib
import hashlib
import http.client
import json
import os
import re
from dataclasses import asdict
from pathlib import Path
from typing import BinaryIO
from urllib.error import URLError
from urllib.parse import urldefrag, urlsplit

import torch
from mmengine.dist import barrier, get_rank
from mmengine.logging import print_log

from ..utils.atomic_files import staged_file, write_atomically
from ..utils.home import temporary_cache
from ..utils.locks import waiting_lock
from .transfer import UnchangedError, Version, describe, receive_all

_CHUNK = 2**20
# torch.hub and mmpretrain put the first eight or more digits of the SHA-256 into a file's name.
# Eight decimal digits are a date.
_HASH = re.compile(r'-(?=[0-9a-f]*[a-f])([0-9a-f]{8,64})\.')


def fetch(url: str, folder: str | Path | None = None) -> str:
    """Returns the path of a local copy of the file at an http(s) URL.

    The file is downloaded if there is no copy, or the server has other content now. Without an
    answer from the server, the copy is used with a log line. The first rank downloads while the
    others wait.

    Args:
        url: the URL.
        folder: folder of the cache; ``checkpoints`` in ``torch.hub.get_dir()`` if None.

    Raises:
        ValueError: if the content does not have the hash that is part of the file's name.
        URLError: if there is no copy and the content cannot be downloaded.
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
    """Returns the path of a copy; ``revalidate`` compares an existing one with the server's."""
    name = os.path.basename(urlsplit(url).path) or 'checkpoint.pth'
    path = folder / f'{hashlib.sha256(url.encode()).hexdigest()[:16]}-{name[-150:]}'

    def log_wait(holder: str) -> None:
        print_log(f'Waiting for {holder}, which is downloading {url}.', logger='current')

    with contextlib.ExitStack() as stack:
        # Without locks, two processes download the same content to temporary names of their own.
        with contextlib.suppress(OSError):
            stack.enter_context(waiting_lock(path.with_name(f'{path.name}.lock'), log_wait))
        version = _read_version(path, url)
        # A name with a hash never gets other content.
        if version and (not revalidate or _HASH.search(name)):
            return path
        try:
            _download(url, path, version)
        except UnchangedError:
            pass
        except (OSError, http.client.HTTPException) as error:
            if version is None:
                raise URLError(f'{url}: {describe(error)}') from None
            print_log(
                f'Using the copy {path} of {url}, as it could not be checked ({describe(error)}).',
                'current',
            )
    return path


def _read_version(path: Path, url: str) -> Version | None:
    """Returns the version of the copy at ``path``; None if there is none or it is incomplete."""
    try:
        version = Version(**json.loads(_note_of(path).read_text()))
        is_complete = version.url == url and path.stat().st_size == version.size
    except (OSError, ValueError, TypeError):
        return None
    return version if is_complete else None


def _note_of(path: Path) -> Path:
    """Returns the path of the note on a copy's version."""
    return path.with_name(f'{path.name}.json')


def _download(url: str, path: Path, cached: Version | None) -> None:
    """Downloads a URL to ``path``; raises UnchangedError if ``cached`` is still current."""
    with staged_file(path) as part, open(part, 'wb+') as content:
        version = receive_all(url, content, cached)
        _check_hash(content, path.name, url)
        size = content.seek(0, os.SEEK_END)
        # Removed first, so that an old note never describes the new content.
        _note_of(path).unlink(missing_ok=True)
    write_atomically(_note_of(path), json.dumps(asdict(version) | dict(size=size)).encode())


def _check_hash(content: BinaryIO, name: str, url: str) -> None:
    """Raises ValueError if a file's name contains a hash that its content does not have."""
    wanted = _HASH.search(name)
    if wanted is None:
        return
    content.seek(0)
    digest = hashlib.sha256()
    while chunk := content.read(_CHUNK):
        digest.update(chunk)
    found = digest.hexdigest()
    if not found.startswith(wanted[1]):
        raise ValueError(
            f'{url} is damaged, or not the file that its name promises: its SHA-256 begins with '
            f'{found[:8]}, not {wanted[1]}'
        )
