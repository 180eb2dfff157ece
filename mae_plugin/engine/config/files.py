"""Finds the config that a path or a name means, reads it, and says in which file an error is."""

from __future__ import annotations

import ast
import difflib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mmengine.config import Config

from ...utils._compat.mmpretrain import hub_models

_ENDINGS = ('.py', '.yml', '.yaml', '.json')
WEIGHT_ENDINGS = ('.pth', '.pt', '.bin', '.safetensors', '.ckpt')


def asset_root() -> Path:
    """The folder that holds ``configs/`` and ``model-index.yml``: inside an installed wheel, or the
    checkout.
    """
    package = Path(__file__).resolve().parents[2]
    return package / '.mim' if (package / '.mim').is_dir() else package.parent


def our_configs() -> dict[str, Path]:
    """Returns the files of our configs by their names."""
    return {
        file.stem: file
        for file in (asset_root() / 'configs').rglob('*.py')
        if '_base_' not in file.parts
    }


def find_config(config: str) -> Path:
    """Returns the file that a config's path or name means; names are those of our configs and of
    mmpretrain's models.

    Raises:
        FileNotFoundError: if there is neither; the sentence has a near name.
        ValueError: for a checkpoint or a folder.
    """
    path = Path(config).expanduser()
    if path.is_file():
        if path.suffix in WEIGHT_ENDINGS:
            raise ValueError(f'{config} holds weights and is no config; a config ends in .py')
        if path.suffix not in _ENDINGS:
            raise ValueError(f'{config} is no config; a config ends in {", ".join(_ENDINGS)}')
        return path
    if path.is_dir():
        raise ValueError(f'{config} is a folder; give the path or the name of a config')
    ours = our_configs()
    name = path.stem if path.suffix == '.py' and path.name == config else config
    if name in ours:
        return ours[name]
    model = hub_models().get(name.lower())
    if model is not None and isinstance(model.config, str):
        return Path(model.config)
    near = difflib.get_close_matches(path.name.removesuffix('.py'), [*ours, *hub_models()], n=1)
    hint = (
        f'did you mean {near[0]}?' if near else 'ours are in configs/mae and configs/mae/benchmarks'
    )
    raise FileNotFoundError(f'there is no config {config}; {hint}')


def read_config(file: str | Path) -> Config:
    """Reads a config.

    Raises:
        ValueError: if it cannot be read; the sentence names the file, also where that is one of its
            bases, and the line of an error in its syntax.
    """
    try:
        return Config.fromfile(file)
    except SyntaxError as error:
        broken, line, reason = _broken_file(Path(file)) or (file, error.lineno, error.msg)
        raise ValueError(
            f'{broken} is not Python that can be read: line {line}: {reason}'
        ) from error
    except Exception as error:
        said = error.args[0] if isinstance(error, KeyError) and error.args else error
        kind = '' if isinstance(error, (OSError, ValueError)) else f'{type(error).__name__}: '
        raise ValueError(f'the config {file} cannot be read: {kind}{said}') from error


def _broken_file(file: Path) -> tuple[Path, int | None, str] | None:
    """The file with an error in its syntax, this one or a base of it, with line and reason."""
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
    for node in tree.body:
        if isinstance(node, ast.Assign) and getattr(node.targets[0], 'id', '') == '_base_':
            bases: Any = ast.literal_eval(node.value)
            yield from [bases] if isinstance(bases, str) else bases


def merge_options(cfg: Config, options: dict[str, Any]) -> None:
    """Changes settings of a config, each named by its path such as ``train_cfg.max_epochs``.

    Raises:
        ValueError: if a path leads through something that has no parts.
    """
    for key, value in options.items():
        try:
            cfg.merge_from_dict({key: value})
        except (
            KeyError,
            TypeError,
            AttributeError,
            IndexError,
            AssertionError,
            ValueError,
        ) as error:
            said = error.args[0] if isinstance(error, KeyError) and error.args else error
            raise ValueError(f'--cfg-options {key}={value}: {said}') from error
