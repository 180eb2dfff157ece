"""Processes without a home folder, as in a container that runs as a bare number."""

from __future__ import annotations

import getpass
import os
import tempfile
import warnings
from pathlib import Path


def provide_user() -> None:
    """Sets ``USER`` and ``XDG_CACHE_HOME`` where the system knows neither name nor home folder of
    this user.

    Libraries look for both when they are imported, and fail without.
    """
    try:
        getpass.getuser()
    # A KeyError before Python 3.13.
    except (KeyError, OSError):
        os.environ['USER'] = str(os.getuid())
    if os.environ.get('XDG_CACHE_HOME'):
        return
    try:
        Path.home()
    except RuntimeError:
        folder = temporary_cache()
        os.environ['XDG_CACHE_HOME'] = str(folder)
        warnings.warn(
            f'there is no home folder, so caches are kept in {folder}; HOME names another',
            stacklevel=2,
        )


def temporary_cache() -> Path:
    """Returns a folder of temporary files that belongs to this user alone; it is the same every
    time if possible.
    """
    folder = Path(tempfile.gettempdir(), f'mae_plugin-{os.getuid()}')
    try:
        folder.mkdir(mode=0o700, exist_ok=True)
        mine = folder.lstat().st_uid == os.getuid() and not folder.is_symlink()
    except OSError:
        mine = False
    # Another user may have prepared a folder of that name.
    return folder if mine else Path(tempfile.mkdtemp(prefix='mae_plugin-'))
