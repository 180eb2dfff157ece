"""Folders of Hugging Face: reads and writes weights and ``config.json``."""

from __future__ import annotations

import json
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path

from mmengine.logging import print_log
from torch import Tensor

from ..utils._compat.torch import set_metadata
from .architecture import Sizes, choose_num_heads
from .state_dicts import write_weights

HF_CONFIG = 'config.json'
"""Key, among the notes beside weights from a Hugging Face folder, of the folder's config."""

_WEIGHTS = ('model.safetensors', 'pytorch_model.bin')
_EPS = 1e-6


def read_folder(folder: str, read_file: Callable[[str], dict]) -> dict:
    """Reads a folder as Hugging Face's ``save_pretrained`` writes it, in one file or in shards.

    Args:
        folder: the folder.
        read_file: reads the weights in one file.

    Returns:
        ``dict(state_dict=..., config=...)`` with the content of ``config.json``.

    Raises:
        FileNotFoundError: if the folder lacks some or all of its weights.
        ValueError: if one of its JSON files is not in the form that ``save_pretrained`` writes.
    """
    root = Path(folder).expanduser()
    state_dict = OrderedDict()
    for file in _weight_files(root):
        state_dict.update(read_file(str(root / file)))
    # Old folders may lack it; the weights alone are then used.
    config = root / 'config.json'
    settings = _read_json(config) if config.is_file() else {}
    # mmengine passes on the weights alone, and the notes beside them.
    set_metadata(state_dict, {HF_CONFIG: settings})
    return dict(state_dict=state_dict, config=settings)


def write_folder(state_dict: dict[str, Tensor], config: dict, folder: Path) -> None:
    """Writes a folder that ``from_pretrained`` opens.

    It holds the weights, ``config.json`` and, for three channels, the config of the preprocessor.
    """
    folder.mkdir()
    write_weights(state_dict, folder / 'model.safetensors', 'hf')
    _write_json(config, folder / 'config.json')
    # ImageNet's statistics are for RGB; other images need a preprocessor of their own.
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
        _write_json(processor, folder / 'preprocessor_config.json')


def make_config(
    sizes: Sizes,
    settings: dict[str, int | bool],
    num_heads: int | None = None,
    decoder_num_heads: int | None = None,
) -> dict:
    """Returns the ``config.json`` of a model: encoder, classifier or pre-training.

    Args:
        sizes: the sizes of the model.
        settings: the numbers of heads and ``norm_pix``, as far as the checkpoint has them.
        num_heads: the encoder's attention heads, instead of those in ``settings``.
        decoder_num_heads: the decoder's attention heads, likewise.

    Raises:
        ValueError: if Hugging Face has no such model, or a number of heads is unknown or wrong.
    """
    (height, width), (patch, patch_width) = sizes.img_size, sizes.patch_size
    if patch != patch_width or (sizes.decoder_dims and height != width):
        raise ValueError(
            "Hugging Face's models take square patches, and ViTMAE square images, not "
            f'{sizes.img_size}'
        )
    config = dict(
        architectures=['ViTModel'],
        model_type='vit',
        hidden_size=sizes.embed_dims,
        num_hidden_layers=sizes.num_layers,
        num_attention_heads=choose_num_heads(
            sizes.embed_dims, num_heads, settings.get('num_heads')
        ),
        intermediate_size=sizes.feedforward_channels,
        hidden_act='gelu',
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
        layer_norm_eps=_EPS,
        image_size=height if height == width else [height, width],
        patch_size=patch,
        num_channels=sizes.in_channels,
        qkv_bias=True,
    )
    # The names of the classes are not stored with weights, but the config has to list some.
    if sizes.num_classes:
        labels = [f'LABEL_{i}' for i in range(sizes.num_classes)]
        config.update(
            architectures=['ViTForImageClassification'],
            id2label=dict(enumerate(labels)),
            label2id={label: i for i, label in enumerate(labels)},
        )
    if sizes.decoder_dims:
        heads = choose_num_heads(
            sizes.decoder_dims, decoder_num_heads, settings.get('decoder_num_heads'), decoder=True
        )
        config.update(
            architectures=['ViTMAEForPreTraining'],
            model_type='vit_mae',
            decoder_hidden_size=sizes.decoder_dims,
            decoder_num_hidden_layers=sizes.decoder_layers,
            decoder_num_attention_heads=heads,
            decoder_intermediate_size=sizes.decoder_feedforward,
            mask_ratio=0.75,
            norm_pix_loss=settings.get('norm_pix', False),
        )
    return config


def check_config(config: object) -> None:
    """Checks that models of the other layouts compute what a Hugging Face config describes.

    Another epsilon of LayerNorm is a log line, since its effect is small.

    Args:
        config: the config; anything but a dict is ignored.

    Raises:
        ValueError: for another activation than GELU, or an epsilon that is not a small number.
    """
    if not isinstance(config, dict):
        return
    activation = config.get('hidden_act', 'gelu')
    if activation != 'gelu':
        raise ValueError(
            f'the config has hidden_act={shorten(activation)}, but models of the other layouts '
            'compute gelu'
        )
    eps = config.get('layer_norm_eps', _EPS)
    if type(eps) not in (int, float) or not 0 <= eps < 1:
        raise ValueError(
            f'the config has layer_norm_eps={shorten(eps)}, which is not a small number'
        )
    if eps != _EPS:
        print_log(
            f'The config has layer_norm_eps={eps}, which is not stored with weights; models of '
            f'the other layouts use {_EPS:g}.',
            'current',
        )


def config_grid(config: object) -> tuple[int, int] | None:
    """Returns the rows and columns of patches of a config for images that need not be square.

    A single number for ``image_size`` is no more than a square number of patches already shows.

    Raises:
        ValueError: for sizes that are not positive integers.
    """
    if not isinstance(config, dict):
        return None
    size = _positive_pair(config, 'image_size')
    patch = _positive_pair(config, 'patch_size')
    if isinstance(config.get('image_size'), list) and size and patch:
        return size[0] // patch[0], size[1] // patch[1]
    return None


def shorten(value: object, length: int = 40) -> str:
    """Returns the beginning of a value's ``repr`` for an error."""
    text = repr(value)
    return text if len(text) <= length else f'{text[:length]}…'


def _positive_pair(config: dict, name: str) -> tuple[int, int] | None:
    """Returns a height and width, stored as two integers or one for both; None if absent."""
    value = config.get(name)
    if value is None:
        return None
    pair = value if isinstance(value, list) else [value, value]
    if len(pair) != 2 or not all(type(n) is int and n > 0 for n in pair):
        raise ValueError(
            f'the config has {name}={shorten(value)}, which is not a positive integer, nor two of '
            'them'
        )
    return tuple(pair)


def _weight_files(root: Path) -> list[str]:
    """Returns the names of the files with weights in a folder."""
    for name in _WEIGHTS:
        if (root / name).is_file():
            return [name]
        index = root / f'{name}.index.json'
        if index.is_file():
            return _shards(index)
    raise FileNotFoundError(f'the folder {root} holds neither {" nor ".join(_WEIGHTS)}')


def _shards(index: Path) -> list[str]:
    """Returns the names of the files, beside an index, that the index lists."""
    places = _read_json(index).get('weight_map')
    if not isinstance(places, dict) or not all(isinstance(file, str) for file in places.values()):
        raise ValueError(f'{index} does not list the file of each tensor (weight_map)')
    # Names without folders, so that an index cannot point out of its own folder.
    files = sorted({Path(file).name for file in places.values()})
    for file in files:
        if file in ('', '.', '..') or not (index.parent / file).is_file():
            raise FileNotFoundError(f'{index} names the file {file!r:.200}, which does not exist')
    return files


def _read_json(file: Path) -> dict:
    """Reads a JSON file that holds a dict."""
    try:
        content = json.loads(file.read_text('utf-8'))
    except (ValueError, RecursionError) as error:
        raise ValueError(f'{file} is not a readable JSON file, or incomplete: {error}') from None
    if not isinstance(content, dict):
        raise ValueError(f'{file} holds a {type(content).__name__} instead of names and values')
    return content


def _write_json(content: dict, file: Path) -> None:
    """Writes a dict to a JSON file."""
    file.write_text(json.dumps(content, indent=2) + '\n')
