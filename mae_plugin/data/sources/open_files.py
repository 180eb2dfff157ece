"""Reading of regular files, with a bounded number of open descriptors."""

from __future__ import annotations

import errno
import os
import stat
import threading
from collections import OrderedDict

_NO_DESCRIPTORS = errno.EMFILE, errno.ENFILE


def is_out_of_descriptors(error: BaseException) -> bool:
    """Returns whether opening failed because too many files are open, not because of the file."""
    return isinstance(error, OSError) and error.errno in _NO_DESCRIPTORS


def out_of_descriptors(path: str) -> RuntimeError:
    """Returns the error for a file that was not opened because too many files are open."""
    return RuntimeError(
        f'{path} cannot be opened because too many files are open; raise the limit (ulimit -n) or '
        'lower num_workers'
    )


def read_file(path: str) -> bytes:
    """Reads a regular file.

    Raises:
        OSError: if the file cannot be opened.
        ValueError: if it is a FIFO, a device or a socket, whose content may never end.
    """
    # Buffering would take half of the time.
    with open(path, 'rb', buffering=0, opener=_open) as file:
        return file.read()


def _open(path: str, flags: int) -> int:
    """Opens a regular file; without O_NONBLOCK, opening a FIFO would wait for a writer."""
    # Windows has neither flag.
    flags |= getattr(os, 'O_NONBLOCK', 0) | getattr(os, 'O_NOCTTY', 0)
    descriptor = os.open(path, flags)
    mode = os.fstat(descriptor).st_mode
    # Python itself raises an error for folders.
    if stat.S_ISREG(mode) or stat.S_ISDIR(mode):
        return descriptor
    os.close(descriptor)
    raise ValueError('it is not a regular file')


class OpenFiles:
    """Files that stay open between reads: in each thread, at most ``limit``, the last used ones.

    Forked processes may share it, because reading does not move a file position, and each process
    closes its own descriptors. A copy, including a pickled one for a spawned process, starts empty.

    Args:
        limit: number of files that stay open.
    """

    def __init__(self, limit: int = 64) -> None:
        self.limit = limit
        # One thread must not close a file that another thread reads.
        self._threads = threading.local()

    def read(self, path: str, offset: int, size: int) -> bytes:
        """Reads ``size`` bytes of a file from ``offset``.

        Raises:
            OSError: if the file cannot be opened.
            ValueError: if the file ends too early, or is not a regular file.
        """
        data = os.pread(self._descriptor(path), size, offset)
        if len(data) < size:
            raise ValueError(
                f'{path} ends before byte {offset + size}; it was cut off after it had been indexed'
            )
        return data

    def __len__(self) -> int:
        return len(self._opened)

    @property
    def _opened(self) -> _Descriptors:
        """Open descriptors of the current thread."""
        return self._threads.__dict__.setdefault('opened', _Descriptors())

    def _descriptor(self, path: str) -> int:
        """Returns an open descriptor of a file, which is opened if necessary."""
        opened = self._opened
        if path in opened:
            opened.move_to_end(path)
            return opened[path]
        flags = os.O_RDONLY | getattr(os, 'O_CLOEXEC', 0)
        try:
            descriptor = _open(path, flags)
        except OSError as error:
            if not (opened and is_out_of_descriptors(error)):
                raise
            # The files open here are closed to make room.
            opened.close()
            descriptor = _open(path, flags)
        opened[path] = descriptor
        opened.close(self.limit)
        return descriptor

    def __reduce__(self) -> tuple:
        return OpenFiles, (self.limit,)


class _Descriptors(OrderedDict):
    """Open descriptors by path, in the order of their last use."""

    def close(self, keep: int = 0) -> None:
        """Closes the descriptors that were used longest ago, all but ``keep``."""
        while len(self) > keep:
            os.close(self.popitem(last=False)[1])

    def __del__(self) -> None:
        self.close()
