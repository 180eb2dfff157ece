"""Reads the config that a checkpoint stores as text, without running anything in it.

mmengine stores a run's config in ``meta['cfg']`` as Python code, which its own reader executes.
Here the text is parsed. Everything but plain values is refused, and so is every class of another
package than mmpretrain, its dependencies and this one.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from typing import Any

from mmengine.config import Config
from mmengine.registry import Registry
from mmpretrain.registry import DATASETS, MODELS, TRANSFORMS

_LONGEST = 1_000_000
# Packages of allowed classes. Those of language models download code and weights.
_ALLOWED = ('mae_plugin.', 'mmpretrain.', 'mmcv.', 'mmengine.', 'torch.')
_FOR_TRAINING = ('init_cfg', 'pretrained', 'train_cfg')
_REFUSED = ('mmpretrain.models.multimodal', 'mmpretrain.models.utils.huggingface')


def stored_config(checkpoint: dict, source: str) -> Config:
    """Returns model, data preprocessor and test pipeline of the config in a checkpoint.

    Args:
        checkpoint: the checkpoint.
        source: the name of its file in an error.

    Raises:
        ValueError: if it stores no config, or one that is more than plain values or names a class
            of another package.
    """
    meta = checkpoint.get('meta') if isinstance(checkpoint, dict) else None
    text = meta.get('cfg') if isinstance(meta, dict) else None
    if not isinstance(text, str):
        raise ValueError(
            f'{source} stores no config, as it was not written by a run; name the config too'
        )
    found = parse_config(text, source)
    if not isinstance(found.get('model'), dict):
        raise ValueError(f'the config in {source} has no model; name the config too')
    kept: dict[str, Any] = {}
    for name in ('model', 'data_preprocessor'):
        if name in found:
            kept[name] = _for_use(found[name])
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

    Args:
        text: the config.
        source: the name of its file in an error.

    Raises:
        ValueError: for anything else.
    """
    refused = (
        f'the config in {source} is more than plain values, so it was not read; name the config too'
    )
    if len(text) > _LONGEST:
        raise ValueError(refused)
    try:
        found = {}
        for node in ast.parse(text).body:
            if not isinstance(node, ast.Assign) or len(node.targets) != 1:
                raise ValueError(f'line {node.lineno}')
            target = node.targets[0]
            if not isinstance(target, ast.Name):
                raise ValueError(f'line {node.lineno}')
            found[target.id] = _value(node.value)
        return found
    # The parser raises several of these for texts that are nested too deeply.
    except (SyntaxError, ValueError, TypeError, RecursionError, MemoryError) as error:
        raise ValueError(f'{refused} ({str(error)[:80]})') from None


def _value(node: ast.expr) -> Any:
    """Returns the value of an expression, or raises ValueError with its line."""
    if isinstance(node, ast.Call):
        # A dict whose keys are not identifiers is written dict({'.bias': 0}).
        is_dict = isinstance(node.func, ast.Name) and node.func.id == 'dict'
        is_plain = not node.args or (len(node.args) == 1 and isinstance(node.args[0], ast.Dict))
        if not is_dict or not is_plain or any(keyword.arg is None for keyword in node.keywords):
            raise ValueError(f'line {node.lineno}')
        found = _value(node.args[0]) if node.args else {}
        return found | {keyword.arg: _value(keyword.value) for keyword in node.keywords}
    if isinstance(node, ast.Dict):
        if any(key is None for key in node.keys):
            raise ValueError(f'line {node.lineno}')
        keys = [ast.literal_eval(key) for key in node.keys if key]
        values = [_value(value) for value in node.values]
        return dict(zip(keys, values, strict=True))
    if isinstance(node, ast.List):
        return [_value(item) for item in node.elts]
    if isinstance(node, ast.Tuple):
        return tuple(_value(item) for item in node.elts)
    return ast.literal_eval(node)


def _check_types(node: Any, registry: Registry, source: str) -> None:
    """Raises ValueError if a config names a class that is not allowed."""
    for name in _types(node):
        kind = None
        if isinstance(name, str):
            kind = _registered(registry, name.removeprefix('mmpretrain.'))
        module = f'{getattr(kind, "__module__", "")}.'
        if not module.startswith(_ALLOWED) or module.startswith(_REFUSED):
            raise ValueError(
                f'the config in {source} names {str(name)[:60]}, which is not part of mmpretrain '
                'or mae_plugin; name the config too'
            )


def _registered(registry: Registry | None, name: str) -> Any:
    """Returns the class that is registered under a name, or None.

    ``Registry.get`` would import any module that the name is a path of.
    """
    while registry is not None:
        registry.import_from_location()
        if name in registry.module_dict:
            return registry.module_dict[name]
        registry = registry.parent
    return None


def _types(node: Any) -> Iterator[Any]:
    """Yields every ``type`` in a config."""
    if isinstance(node, dict):
        if 'type' in node:
            yield node['type']
        node = list(node.values())
    for value in node if isinstance(node, (list, tuple)) else ():
        yield from _types(value)


def _for_use(node: Any) -> Any:
    """Returns a config without the settings of training: initial weights, batch augmentations."""
    if isinstance(node, dict):
        return {key: _for_use(value) for key, value in node.items() if key not in _FOR_TRAINING}
    return type(node)(map(_for_use, node)) if isinstance(node, (list, tuple)) else node
