"""Finds and reads configs by path or name, with errors that name the broken file."""

from __future__ import annotations

import ast
import difflib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mmengine.config import Config

from ...utils._compat.mmpretrain import hub_models

_ENDINGS = ('.py', '.yml', '.yaml', '.json')
# Errors of mmengine for a setting that does not exist.
_MERGE_ERRORS = (KeyError, TypeError, AttributeError, IndexError, AssertionError, ValueError)
WEIGHT_ENDINGS = ('.pth', '.pt', '.bin', '.safetensors', '.ckpt')


def asset_root() -> Path:
    """Returns the folder with ``configs/`` and ``model-index.yml``, in a wheel or a checkout."""
    package = Path(__file__).resolve().parents[2]
    return package / '.mim' if (package / '.mim').is_dir() else package.parent


def our_configs() -> dict[str, Path]:
    """Returns the files of the plugin's configs by their names."""
    files = (asset_root() / 'configs').rglob('*.py')
    return {file.stem: file for file in files if '_base_' not in file.parts}


def find_config(config: str) -> Path:
    """Returns the file of a config.

    Args:
        config: path of a config, or name of one of the plugin's configs or of mmpretrain's models.

    Raises:
        FileNotFoundError: if there is no such config. The message suggests a similar name.
        ValueError: for a checkpoint or a folder.
    """
    path = Path(config).expanduser()
    if path.is_file():
        if path.suffix in WEIGHT_ENDINGS:
            raise ValueError(f'{config} holds weights and is not a config; a config ends in .py')
        if path.suffix not in _ENDINGS:
            raise ValueError(f'{config} is not a config; a config ends in {", ".join(_ENDINGS)}')
        return path
    if path.is_dir():
        raise ValueError(f'{config} is a folder; use the path or the name of a config')
    ours = our_configs()
    # A file name without folder, such as NAME.py, also stands for the name.
    name = path.stem if path.suffix == '.py' and path.name == config else config
    if name in ours:
        return ours[name]
    model = hub_models().get(name.lower())
    if model is not None and isinstance(model.config, str):
        return Path(model.config)
    near = difflib.get_close_matches(path.name.removesuffix('.py'), [*ours, *hub_models()], n=1)
    hint = 'those of the plugin are in configs/mae and configs/mae/benchmarks'
    if near:
        hint = f'did you mean {near[0]}?'
    raise FileNotFoundError(f'there is no config {config}; {hint}')


def read_config(file: str | Path) -> Config:
    """Reads a config.

    Raises:
        ValueError: if it cannot be read. For a syntax error, the message names the broken file,
            which may be one of its bases, and the line.
    """
    try:
        return Config.fromfile(file)
    except SyntaxError as error:
        broken, line, reason = _broken_file(Path(file)) or (file, error.lineno, error.msg)
        raise ValueError(f'{broken} has a syntax error in line {line}: {reason}') from error
    except Exception as error:
        kind = '' if isinstance(error, (OSError, ValueError)) else f'{type(error).__name__}: '
        raise ValueError(f'the config {file} cannot be read: {kind}{_message(error)}') from error


def _broken_file(file: Path) -> tuple[Path, int | None, str] | None:
    """Returns the file with a syntax error, a config or a base of it, with line and reason."""
    try:
        tree = ast.parse(file.read_text())
    except SyntaxError as error:
        return file, error.lineno, error.msg
    except (OSError, UnicodeDecodeError):
        return None
    for base in _bases(tree):
        if found := _broken_file(file.parent / base):
            return found
    return None


def _bases(tree: ast.Module) -> Iterator[str]:
    """Yields the paths in the ``_base_`` of a config."""
    for node in tree.body:
        if isinstance(node, ast.Assign) and getattr(node.targets[0], 'id', '') == '_base_':
            bases: Any = ast.literal_eval(node.value)
            yield from [bases] if isinstance(bases, str) else bases


def merge_options(cfg: Config, options: dict[str, Any]) -> None:
    """Changes settings of a config in place.

    Args:
        cfg: the config.
        options: values by setting, such as ``train_cfg.max_epochs``.

    Raises:
        ValueError: if a setting leads through a value that is neither a dict nor a list.
    """
    for key, value in options.items():
        try:
            cfg.merge_from_dict({key: value})
        except _MERGE_ERRORS as error:
            raise ValueError(f'cannot set {key}={value}: {_message(error)}') from error


def _message(error: Exception) -> object:
    """Returns the message of an error, without the quotes that a KeyError adds."""
    return error.args[0] if isinstance(error, KeyError) and error.args else error
