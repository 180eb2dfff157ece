"""Loads checkpoints without running anything that is in them, on both stacks and from files and
addresses alike.

mmengine's own loaders leave it to torch's default, which for an address is to unpickle whatever
comes; those of onedl-mmengine fall back to that for files too. The loaders here replace both, and
read every file as plain data.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import partial

import torch
from mmengine.runner import CheckpointLoader
from safetensors.torch import load_file

from .downloads import fetch
from .foreign import renamed_for_prefix
from .hugging_face import read_folder
from .plain_state import restore_message_hub
from .reading.torch_files import read_torch_file, said_of

Location = str | torch.device | Callable | dict | None

_trusted = False


def trust_checkpoints() -> None:
    """From now on, this process unpickles whatever a checkpoint holds, which can run any code."""
    global _trusted
    _trusted = True


def read_checkpoint(filename: str, map_location: Location = None) -> dict:
    """Reads a ``.pth`` or ``.safetensors`` file, or a Hugging Face folder, as plain data.

    Args:
        filename: the file or folder.
        map_location: device for the tensors, the CPU if left out; with 'meta' those of a ``.pth``
            file are not read. A function or dict, as for ``torch.load``, is taken for the CPU.

    Raises:
        FileNotFoundError: if there is none.
        ValueError: if it is damaged, holds anything but data, or is no dict.
    """
    path = os.path.expanduser(filename)
    if os.path.isdir(path):
        return read_folder(path, partial(read_checkpoint, map_location=map_location))
    if not os.path.isfile(path):
        raise FileNotFoundError(f'there is no checkpoint {filename}')
    device = map_location if isinstance(map_location, str | torch.device) else 'cpu'
    if path.endswith('.safetensors'):
        with said_of(filename):
            return load_file(path)
    if _trusted:
        with said_of(filename):
            checkpoint = torch.load(path, map_location=device, weights_only=False)
    else:
        checkpoint = read_torch_file(path, device)
    if not isinstance(checkpoint, dict):
        raise ValueError(
            f'{filename} holds a {type(checkpoint).__name__}, not the dict that a checkpoint is'
        )
    return checkpoint


def load_from_local(filename: str, map_location: Location = None) -> dict:
    """Loads a checkpoint as mmengine takes it, with the names that :func:`renamed_for_prefix`
    gives.

    The message hub gets its HistoryBuffers back. A config that mmcv wrote as ``meta['config']`` is
    left out, since mmengine would run it as Python code when it resumes.

    Errors as for :func:`read_checkpoint`.
    """
    checkpoint = read_checkpoint(filename, map_location)
    with said_of(filename):
        restore_message_hub(checkpoint)
    if not _trusted:
        _check_parts(checkpoint, filename)
        if isinstance(meta := checkpoint.get('meta'), dict):
            meta.pop('config', None)
    return renamed_for_prefix(checkpoint)


def _check_parts(checkpoint: dict, filename: str) -> None:
    """Raises ValueError if the parts of a checkpoint of mmengine are no dicts, which mmengine takes
    for granted.
    """
    if 'state_dict' not in checkpoint:
        return
    for name in ('state_dict', 'meta', 'message_hub'):
        part = checkpoint.get(name)
        if part is None and name != 'state_dict':
            continue
        if not isinstance(part, dict) or not all(isinstance(key, str) for key in part):
            raise ValueError(
                f'{filename} holds a {type(part).__name__} as {name}, not a dict of names and '
                'values'
            )


def load_from_http(
    filename: str, map_location: Location = None, model_dir: str | None = None
) -> dict:
    """Loads a checkpoint from a URL, downloading it first if necessary; otherwise as from a
    file.
    """
    cached = fetch(filename, model_dir)
    try:
        return load_from_local(cached, map_location)
    except ValueError as error:
        raise ValueError(
            f'{error}; it was downloaded from {filename}, delete it to fetch it anew'
        ) from None


def register_loaders() -> None:
    """Makes mmengine load files and http(s) addresses by the functions above."""
    CheckpointLoader.register_scheme('', load_from_local, force=True)
    CheckpointLoader.register_scheme(['http://', 'https://'], load_from_http, force=True)
