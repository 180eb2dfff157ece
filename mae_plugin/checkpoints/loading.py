"""Loads checkpoints without running anything that is in them, on both stacks and from files and addresses alike.

mmengine's own loaders leave it to torch's default, which for an address is to unpickle whatever comes; those of
onedl-mmengine fall back to that for files too. The loaders here replace both.
"""

from __future__ import annotations

import os
import pickle
import re
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from mmengine.dist import barrier, get_rank
from mmengine.runner import CheckpointLoader

_trusted = False


def trust_checkpoints() -> None:
    """From now on, this process unpickles whatever a checkpoint holds, which can run any code."""
    global _trusted
    _trusted = True


def load_from_local(filename: str, map_location: str | None = None) -> dict:
    """Loads a checkpoint from a file.

    Raises:
        FileNotFoundError: if there is none.
        ValueError: if it is not a checkpoint, or holds a type that checkpoints do not need.
    """
    path = os.path.expanduser(filename)
    if not os.path.isfile(path):
        raise FileNotFoundError(f'there is no checkpoint {filename}')
    with _said_of(filename):
        return torch.load(path, map_location=map_location, weights_only=not _trusted)


def load_from_http(filename: str, map_location: str | None = None, model_dir: str | None = None) -> dict:
    """Loads a checkpoint from an address through torch's cache of downloads; errors as for a file."""
    first = get_rank() == 0
    # The first process fetches, the others find the file in the cache.
    if not first:
        barrier()
    try:
        with _said_of(filename):
            return torch.hub.load_state_dict_from_url(
                filename, model_dir=model_dir, map_location=map_location, weights_only=not _trusted
            )
    finally:
        if first:
            barrier()


@contextmanager
def _said_of(filename: str) -> Iterator[None]:
    """Says in one sentence what is wrong with a file, in place of torch's page."""
    try:
        yield
    except (pickle.UnpicklingError, EOFError, RuntimeError, UnicodeDecodeError) as error:
        named = re.search(r'GLOBAL (\S+)|asks for (\S+),', str(error))
        if named:
            raise ValueError(
                f'{filename} holds {named[1] or named[2]}, a type that no checkpoint needs, so it was not loaded and '
                'nothing in it was run; load it with --trust-checkpoint only if you trust its source'
            ) from None
        reason = ' '.join(str(error).split())[:120] or 'it ends too early'
        raise ValueError(f'{filename} is not a checkpoint that can be read, or only a part of one: {reason}') from None


def register_loaders() -> None:
    """Makes mmengine load files and http(s) addresses by the functions above."""
    CheckpointLoader.register_scheme('', load_from_local, force=True)
    CheckpointLoader.register_scheme(['http://', 'https://'], load_from_http, force=True)
