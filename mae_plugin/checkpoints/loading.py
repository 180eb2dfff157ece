"""Loads checkpoints without running anything that is in them, on both stacks and from files and addresses alike.

mmengine's own loaders leave it to torch's default, which for an address is to unpickle whatever comes; those of
onedl-mmengine fall back to that for files too. The loaders here replace both.
"""

from __future__ import annotations

import hashlib
import os
import pickle
import re
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from urllib.parse import urlparse

import torch
from mmengine.dist import barrier, get_rank
from mmengine.logging import print_log
from mmengine.runner import CheckpointLoader
from safetensors import SafetensorError
from safetensors.torch import load_file

from .formats import read_folder, weights_of
from .layouts import detect, to_mmpretrain
from .sizes import heed_config

_trusted = False


def trust_checkpoints() -> None:
    """From now on, this process unpickles whatever a checkpoint holds, which can run any code."""
    global _trusted
    _trusted = True


def read_checkpoint(filename: str, map_location: str | None = None) -> dict:
    """Reads a ``.pth`` or ``.safetensors`` file, or a Hugging Face folder, as it is.

    Raises:
        FileNotFoundError: if there is none.
        ValueError: if it is not a checkpoint, or holds a type that checkpoints do not need.
    """
    path = os.path.expanduser(filename)
    if os.path.isdir(path):
        return read_folder(path, partial(read_checkpoint, map_location=map_location))
    if not os.path.isfile(path):
        raise FileNotFoundError(f'there is no checkpoint {filename}')
    with _said_of(filename):
        if path.endswith('.safetensors'):
            return load_file(path)
        return torch.load(path, map_location=map_location, weights_only=not _trusted)


def load_from_local(filename: str, map_location: str | None = None) -> dict:
    """Loads a checkpoint; the authors', timm's and Hugging Face's weights come in mmpretrain's layout.

    Errors as for :func:`read_checkpoint`.
    """
    return _in_our_layout(read_checkpoint(filename, map_location), filename)


def load_from_http(filename: str, map_location: str | None = None, model_dir: str | None = None) -> dict:
    """Loads a checkpoint from an address through torch's cache of downloads; otherwise as from a file."""
    first = get_rank() == 0
    # The first process fetches, the others find the file in the cache.
    if not first:
        barrier()
    try:
        address = urlparse(filename).path
        if address.endswith(('.safetensors', '.bin')):
            # Such files are all called alike, and the cache goes by the name.
            name = f'{hashlib.sha256(filename.encode()).hexdigest()[:16]}-{os.path.basename(address)}'
            cached = os.path.join(model_dir or os.path.join(torch.hub.get_dir(), 'checkpoints'), name)
            if not os.path.exists(cached):
                os.makedirs(os.path.dirname(cached), exist_ok=True)
                torch.hub.download_url_to_file(filename, cached)
            return load_from_local(cached, map_location)
        kept = os.path.join(model_dir or os.path.join(torch.hub.get_dir(), 'checkpoints'), os.path.basename(address))
        with _said_of(filename, f'; it was downloaded to {kept}, delete that to fetch it anew'):
            checkpoint = torch.hub.load_state_dict_from_url(
                filename, model_dir=model_dir, map_location=map_location, weights_only=not _trusted
            )
        return _in_our_layout(checkpoint, filename)
    finally:
        if first:
            barrier()


def _in_our_layout(checkpoint: dict, filename: str) -> dict:
    """Gives weights of another layout mmpretrain's names; anything else, each file of a Runner too, stays as it is."""
    weights = weights_of(checkpoint)
    content = detect(weights) if weights and 'meta' not in checkpoint else None
    if content is None or content.layout == 'mmpretrain':
        return checkpoint
    heed_config(checkpoint)
    print_log(f"{filename} is in {content}; it is loaded under mmpretrain's names.", 'current')
    return dict(state_dict=to_mmpretrain(weights))


@contextmanager
def _said_of(filename: str, advice: str = '') -> Iterator[None]:
    """Says in one sentence what is wrong with a file, in place of torch's page, and what to do with a damaged one."""
    try:
        yield
    except (pickle.UnpicklingError, EOFError, RuntimeError, UnicodeDecodeError, SafetensorError) as error:
        named = re.search(r'GLOBAL (\S+)|asks for (\S+),', str(error))
        if named:
            raise ValueError(
                f'{filename} holds {named[1] or named[2]}, a type that no checkpoint needs, so it was not loaded and '
                'nothing in it was run; load it with --trust-checkpoint only if you trust its source'
            ) from None
        reason = ' '.join(str(error).split())[:120] or 'it ends too early'
        raise ValueError(
            f'{filename} is not a checkpoint that can be read, or only a part of one: {reason}{advice}'
        ) from None


def register_loaders() -> None:
    """Makes mmengine load files and http(s) addresses by the functions above."""
    CheckpointLoader.register_scheme('', load_from_local, force=True)
    CheckpointLoader.register_scheme(['http://', 'https://'], load_from_http, force=True)
