"""Reads Hugging Face folders, and writes weights so that a file is there whole or not at all."""

from __future__ import annotations

import copy
import json
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor

from ..utils._compat.torch import set_metadata

HF_CONFIG = 'config.json'
"""Where the metadata of weights from a Hugging Face folder hold its config."""

_WEIGHTS = ('model.safetensors', 'pytorch_model.bin')


def read_folder(folder: str, read_file: Callable[[str], dict]) -> dict:
    """Reads a folder as Hugging Face's ``save_pretrained`` writes it, in one file or in shards.

    Returns:
        ``dict(state_dict=..., config=...)`` with what is in ``config.json``.

    Raises:
        FileNotFoundError: if the folder holds no weights, or only some.
        ValueError: if one of its JSON files is not as ``save_pretrained`` writes it.
    """
    root = Path(folder).expanduser()
    for name in _WEIGHTS:
        index = root / f'{name}.index.json'
        if (root / name).is_file():
            files = [name]
        elif index.is_file():
            files = _shards(index)
        else:
            continue
        state_dict = OrderedDict(
            (key, tensor) for file in files for key, tensor in read_file(str(root / file)).items()
        )
        config = root / 'config.json'
        settings = _read_json(config) if config.is_file() else {}
        # mmengine hands on the weights alone, with this attribute.
        set_metadata(state_dict, {HF_CONFIG: settings})
        return dict(state_dict=state_dict, config=settings)
    raise FileNotFoundError(f'the folder {folder} holds neither {" nor ".join(_WEIGHTS)}')


def _read_json(file: Path) -> dict:
    try:
        content = json.loads(file.read_text('utf-8'))
    except (ValueError, RecursionError) as error:
        raise ValueError(
            f'{file} is not a JSON file that can be read, or only a part of one: {error}'
        ) from None
    if not isinstance(content, dict):
        raise ValueError(f'{file} holds a {type(content).__name__}, not names and values')
    return content


def _shards(index: Path) -> list[str]:
    """The files, beside the index, in which it says that weights are."""
    places = _read_json(index).get('weight_map')
    if not isinstance(places, dict) or not all(isinstance(file, str) for file in places.values()):
        raise ValueError(f'{index} does not say in which file each tensor is (weight_map)')
    # Names alone, so that an index cannot point out of its folder.
    files = sorted({Path(file).name for file in places.values()})
    missing = [
        file for file in files if file in ('', '.', '..') or not (index.parent / file).is_file()
    ]
    if missing:
        raise FileNotFoundError(f'{index} names the file {missing[0]!r:.200}, which is not there')
    return files


def weights_of(checkpoint: dict) -> dict[str, Tensor]:
    """The weights in a checkpoint, under ``state_dict``, under ``model`` or bare; empty if it holds
    none.
    """
    if isinstance(checkpoint, dict):
        for name in ('state_dict', 'model'):
            if isinstance(checkpoint.get(name), dict):
                checkpoint = checkpoint[name]
                break
        if all(
            isinstance(key, str) and isinstance(value, Tensor) for key, value in checkpoint.items()
        ):
            return checkpoint
    return {}


def write_weights(state_dict: dict[str, Tensor], target: Path, layout: str) -> None:
    """Writes a ``.safetensors`` file, or a ``.pth`` file wrapped as the layout's own code expects
    it.

    Raises:
        ValueError: for another ending.
    """
    # Copies, as a part of a larger tensor would bring the whole one along.
    # In place, as what torch stores beside a state dict goes with the object.
    state_dict = copy.copy(state_dict)
    for key, tensor in state_dict.items():
        state_dict[key] = tensor.clone(memory_format=torch.contiguous_format)
    if target.suffix == '.safetensors':
        # safetensors makes files that their owner alone can read; this one is to be as any other.
        target.touch()
        mode = target.stat().st_mode
        save_file(state_dict, target, metadata=dict(format='pt'))
        target.chmod(mode)
    elif target.suffix == '.pth':
        wrapped = dict(mmpretrain=dict(state_dict=state_dict), mae=dict(model=state_dict))
        torch.save(wrapped.get(layout, state_dict), target)
    else:
        raise ValueError(
            f'{target.name} ends neither in .pth nor in .safetensors, which say how to write it'
        )


def write_hf_folder(state_dict: dict[str, Tensor], config: dict, folder: Path) -> None:
    """Writes what ``from_pretrained`` opens: weights, ``config.json`` and, for three channels, the
    preprocessor's.
    """
    folder.mkdir()
    write_weights(state_dict, folder / 'model.safetensors', 'hf')
    (folder / 'config.json').write_text(json.dumps(config, indent=2) + '\n')
    if config['num_channels'] == 3:
        size = config['image_size']
        height, width = (size, size) if isinstance(size, int) else size
        processor = dict(
            image_processor_type='ViTImageProcessor',
            do_resize=True,
            size=dict(height=height, width=width),
            resample=3,  # bicubic
            do_rescale=True,
            rescale_factor=1 / 255,
            do_normalize=True,
            image_mean=[0.485, 0.456, 0.406],
            image_std=[0.229, 0.224, 0.225],
        )
        (folder / 'preprocessor_config.json').write_text(json.dumps(processor, indent=2) + '\n')
