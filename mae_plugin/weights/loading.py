"""Loads checkpoints from files and URLs as plain data, without running anything in them.

mmengine's loaders rely on torch's default, which unpickles the content of a URL; those of
onedl-mmengine fall back to unpickling for files too. The loaders here replace both.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import partial
from typing import TypeAlias

import torch
from mmengine.runner import CheckpointLoader
from safetensors.torch import load_file

from .downloads import fetch
from .foreign import renamed_for_prefix
from .hugging_face import read_folder
from .plain_state import restore_message_hub
from .reading.torch_files import read_torch_file, short_errors

Location: TypeAlias = str | torch.device | Callable | dict | None

_trusted = False


def trust_checkpoints() -> None:
    """Makes this process unpickle all that a checkpoint holds, which can run any code."""
    global _trusted
    _trusted = True


def read_checkpoint(filename: str, map_location: Location = None) -> dict:
    """Reads a ``.pth`` or ``.safetensors`` file, or a Hugging Face folder, as plain data.

    Args:
        filename: the file or folder.
        map_location: device of the tensors, the CPU if None; with ``'meta'`` the tensors of a
            ``.pth`` file are not read. A function or dict, which ``torch.load`` accepts, means the
            CPU.

    Raises:
        FileNotFoundError: if there is none.
        ValueError: if it is damaged, holds anything but data, or is not a dict.
    """
    path = os.path.expanduser(filename)
    if os.path.isdir(path):
        return read_folder(path, partial(read_checkpoint, map_location=map_location))
    if not os.path.isfile(path):
        raise FileNotFoundError(f'there is no checkpoint {filename}')
    device = map_location if isinstance(map_location, str | torch.device) else 'cpu'
    # This format cannot hold code, so it is read in the same way from every source.
    if path.endswith('.safetensors'):
        with short_errors(filename):
            return load_file(path)
    if _trusted:
        with short_errors(filename):
            checkpoint = torch.load(path, map_location=device, weights_only=False)
    else:
        checkpoint = read_torch_file(path, device)
    if not isinstance(checkpoint, dict):
        raise ValueError(
            f'{filename} holds a {type(checkpoint).__name__}, not the dict that a checkpoint is'
        )
    return checkpoint


def load_from_local(filename: str, map_location: Location = None) -> dict:
    """Loads a checkpoint in the form that mmengine needs.

    The weights are renamed by :func:`renamed_for_prefix`, and the message hub gets its
    HistoryBuffers back. A config that mmcv stored as ``meta['config']`` is left out, because
    mmengine would run it as Python code on resuming.

    Arguments and errors as for :func:`read_checkpoint`.
    """
    checkpoint = read_checkpoint(filename, map_location)
    with short_errors(filename):
        restore_message_hub(checkpoint)
    # mmengine would fail with a long traceback, or run the old config.
    if not _trusted:
        _check_parts(checkpoint, filename)
        meta = checkpoint.get('meta')
        if isinstance(meta, dict):
            meta.pop('config', None)
    return renamed_for_prefix(checkpoint)


def load_from_http(
    filename: str, map_location: Location = None, model_dir: str | None = None
) -> dict:
    """Loads a checkpoint from a URL, after downloading it if necessary.

    Args:
        filename: the URL.
        map_location: as for :func:`read_checkpoint`.
        model_dir: the folder of the download cache; torch's own if None.

    Raises:
        ValueError: as for :func:`read_checkpoint`.
        URLError: if the content cannot be downloaded.
    """
    cached = fetch(filename, model_dir)
    # The name of the copy alone would not show where a damaged file came from.
    try:
        return load_from_local(cached, map_location)
    except ValueError as error:
        raise ValueError(
            f'{error}; it was downloaded from {filename}, delete it to download it again'
        ) from None


def register_loaders() -> None:
    """Makes mmengine load files and http(s) URLs by the functions above."""
    CheckpointLoader.register_scheme('', load_from_local, force=True)
    CheckpointLoader.register_scheme(['http://', 'https://'], load_from_http, force=True)


def _check_parts(checkpoint: dict, filename: str) -> None:
    """Raises ValueError if a part of a checkpoint that mmengine uses as a dict is not one."""
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
