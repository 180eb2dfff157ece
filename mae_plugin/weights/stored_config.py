"""The config that a checkpoint carries as text, read without running anything in it.

mmengine writes a run's config into ``meta['cfg']``, as Python, and its own reader would execute
that. Here the text is parsed. Everything that is not a plain value is refused, as is every class
that is not one of mmpretrain's or ours.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from typing import Any

from mmengine.config import Config
from mmengine.registry import Registry
from mmpretrain.registry import DATASETS, MODELS, TRANSFORMS

_LONGEST = 1_000_000
# Where classes may come from. Those of language models fetch code and weights by themselves.
_ALLOWED = ('mae_plugin.', 'mmpretrain.', 'mmcv.', 'mmengine.', 'torch.')
_FOR_TRAINING = ('init_cfg', 'pretrained', 'train_cfg')
_REFUSED = ('mmpretrain.models.multimodal', 'mmpretrain.models.utils.huggingface')


def stored_config(checkpoint: dict, source: str) -> Config:
    """Returns model, data preprocessor and test pipeline of the config that a checkpoint carries.

    Args:
        checkpoint: as it was read.
        source: its file, for the sentence of an error.

    Raises:
        ValueError: if it carries none, or one that is more than plain values, or names a class of
            another package.
    """
    meta = checkpoint.get('meta') if isinstance(checkpoint, dict) else None
    text = meta.get('cfg') if isinstance(meta, dict) else None
    if not isinstance(text, str):
        raise ValueError(
            f'{source} carries no config, as it was not written by a run; name the config, too'
        )
    found = parse_config(text, source)
    if not isinstance(found.get('model'), dict):
        raise ValueError(f'the config in {source} has no model; name the config, too')
    kept = {name: _for_use(found[name]) for name in ('model', 'data_preprocessor') if name in found}
    dataset = found.get('test_dataloader')
    dataset = dataset.get('dataset') if isinstance(dataset, dict) else None
    if isinstance(dataset, dict) and isinstance(dataset.get('type'), str) and 'pipeline' in dataset:
        kept['test_dataloader'] = dict(
            dataset=dict(type=dataset['type'], pipeline=dataset['pipeline'])
        )
        _check_types([dict(type=dataset['type'])], DATASETS, source)
        _check_types(dataset['pipeline'], TRANSFORMS, source)
    for name in ('model', 'data_preprocessor'):
        _check_types(kept.get(name), MODELS, source)
    return Config(kept)


def parse_config(text: str, source: str) -> dict[str, Any]:
    """Parses a config as mmengine dumps it: assignments of numbers, texts, lists, tuples and dicts.

    Raises:
        ValueError: for anything else.
    """
    refused = f'the config in {source} is more than plain values, so it was not read; name the config, too'
    if len(text) > _LONGEST:
        raise ValueError(refused)
    try:
        found = {}
        for node in ast.parse(text).body:
            if not (
                isinstance(node, ast.Assign)
                and len(node.targets) == 1
                and isinstance(node.targets[0], ast.Name)
            ):
                raise ValueError(f'line {node.lineno}')
            found[node.targets[0].id] = _value(node.value)
        return found
    # The parser itself gives up on texts that are nested too deeply, in several ways.
    except (SyntaxError, ValueError, TypeError, RecursionError, MemoryError) as error:
        raise ValueError(f'{refused} ({str(error)[:80]})') from None


def _value(node: ast.expr) -> Any:
    if isinstance(node, ast.Call):
        # Keys that are no names stand in a display within the call: dict({'.bias': 0}).
        is_dict = isinstance(node.func, ast.Name) and node.func.id == 'dict'
        is_plain = len(node.args) <= 1 and all(
            isinstance(argument, ast.Dict) for argument in node.args
        )
        if not is_dict or not is_plain or any(keyword.arg is None for keyword in node.keywords):
            raise ValueError(f'line {node.lineno}')
        found = _value(node.args[0]) if node.args else {}
        return found | {keyword.arg: _value(keyword.value) for keyword in node.keywords}
    if isinstance(node, ast.Dict):
        if any(key is None for key in node.keys):
            raise ValueError(f'line {node.lineno}')
        return {
            ast.literal_eval(key): _value(value)
            for key, value in zip(node.keys, node.values, strict=True)
            if key
        }
    if isinstance(node, ast.List):
        return [_value(item) for item in node.elts]
    if isinstance(node, ast.Tuple):
        return tuple(_value(item) for item in node.elts)
    return ast.literal_eval(node)


def _check_types(node: Any, registry: Registry, source: str) -> None:
    for name in _types(node):
        kind = (
            _registered(registry, name.removeprefix('mmpretrain.'))
            if isinstance(name, str)
            else None
        )
        module = f'{getattr(kind, "__module__", "")}.'
        if not module.startswith(_ALLOWED) or module.startswith(_REFUSED):
            raise ValueError(
                f'the config in {source} names {str(name)[:60]}, which is no part of mmpretrain '
                'or mae_plugin; name '
                'the config, too'
            )


def _registered(registry: Registry | None, name: str) -> Any:
    """What is registered under a name; Registry.get would import anything whose path the name
    is.
    """
    while registry is not None:
        registry.import_from_location()
        if name in registry.module_dict:
            return registry.module_dict[name]
        registry = registry.parent
    return None


def _types(node: Any) -> Iterator[Any]:
    if isinstance(node, dict):
        if 'type' in node:
            yield node['type']
        node = list(node.values())
    for value in node if isinstance(node, (list, tuple)) else ():
        yield from _types(value)


def _for_use(node: Any) -> Any:
    """A config without what concerns training alone: where weights start from, and batch
    augmentations.
    """
    if isinstance(node, dict):
        return {key: _for_use(value) for key, value in node.items() if key not in _FOR_TRAINING}
    return type(node)(map(_for_use, node)) if isinstance(node, (list, tuple)) else node
