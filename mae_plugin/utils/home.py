"""Support for processes without a home folder, as in a container that runs as a bare user id."""

from __future__ import annotations

import getpass
import os
import tempfile
import warnings
from pathlib import Path


def provide_user() -> None:
    """Sets ``USER`` and ``XDG_CACHE_HOME`` if the system has no name or home folder of the user.

    Libraries read both when they are imported, and fail without them.
    """
    try:
        getpass.getuser()
    # Before Python 3.13, a missing name is a KeyError.
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
    """Returns a temporary folder that only this user owns, the same every time if possible."""
    folder = Path(tempfile.gettempdir(), f'mae_plugin-{os.getuid()}')
    try:
        folder.mkdir(mode=0o700, exist_ok=True)
        is_own = folder.lstat().st_uid == os.getuid() and not folder.is_symlink()
    except OSError:
        is_own = False
    # Another user may have created a folder of that name.
    return folder if is_own else Path(tempfile.mkdtemp(prefix='mae_plugin-'))
