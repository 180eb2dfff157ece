"""Which arguments a class takes, as far as its constructors say."""

from __future__ import annotations

import ast
import inspect
import textwrap
import types
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any, Union, get_args, get_origin

import numpy as np
import torch
from mmengine.config import ConfigDict
from mmengine.hooks import CheckpointHook
from mmengine.runner import Runner
from torch import nn

# Constructors that hand their further keyword arguments to a function, and not to their parent's
# constructor.
_HANDED_ON = {CheckpointHook: Runner.save_checkpoint}
_KINDS = {
    'number': {int, float, torch.Tensor, np.number},
    'bool': {bool},
    'text': {str, Path},
    'dict': {dict, Mapping, ConfigDict},
    'list': {list, tuple, Sequence, set},
    'none': {type(None)},
}


@cache
def arguments_of(kind: type | Callable) -> dict[str, Any] | None:
    """Returns the arguments of a class or function, each with its annotation; None if it takes any.

    Further keyword arguments (``**kwargs``) are those of the next parent's constructor, where a
    constructor does nothing else with them than to pass them on to it.
    """
    if not inspect.isclass(kind):
        names, is_open = _parameters(kind)
        return None if is_open else names
    found: dict[str, Any] = {}
    fixed: set[str] = set()
    for base in kind.__mro__:
        constructor = base.__dict__.get('__init__')
        if constructor is None:
            continue
        if base is object:
            return None
        try:
            names, is_open = _parameters(constructor)
        # A constructor written in C may tell nothing.
        except (TypeError, ValueError):
            return None
        found = {**{name: hint for name, hint in names.items() if name not in fixed}, **found}
        if not is_open or base is nn.Module:
            return found
        if base in _HANDED_ON:
            return {**_parameters(_HANDED_ON[base])[0], **found}
        passed_on = _passed_on(constructor)
        if passed_on is None:
            return None
        fixed |= passed_on
    return None


def _parameters(function: Callable) -> tuple[dict[str, Any], bool]:
    """The named parameters with their annotations, and whether there are further keyword
    arguments.
    """
    try:
        signature = inspect.signature(function, eval_str=True)
    # An annotation may name what is imported for type checkers alone.
    except (NameError, AttributeError, SyntaxError):
        signature = inspect.signature(function)
    by_kind = signature.parameters.values()
    named = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    names = {
        parameter.name: parameter.annotation for parameter in by_kind if parameter.kind in named
    }
    names.pop('self', None)
    return names, any(parameter.kind is inspect.Parameter.VAR_KEYWORD for parameter in by_kind)


def _passed_on(constructor: Callable) -> set[str] | None:
    """The arguments that a constructor itself gives its parent beside ``**kwargs``; None if it uses
    these otherwise.
    """
    try:
        tree = ast.parse(textwrap.dedent(inspect.getsource(constructor)))
    except (OSError, TypeError, SyntaxError):
        return None
    function = tree.body[0]
    if not isinstance(function, ast.FunctionDef) or function.args.kwarg is None:
        return None
    name = function.args.kwarg.arg
    calls = [
        node
        for node in ast.walk(function)
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Attribute)
        and node.func.attr == '__init__'
    ]
    passing = [
        call for call in calls if any(_is_double_star(keyword, name) for keyword in call.keywords)
    ]
    # To put more into them, as ``kwargs |= ...`` does, is no use of what is in them.
    names = [node for node in ast.walk(function) if isinstance(node, ast.Name) and node.id == name]
    uses = sum(isinstance(node.ctx, ast.Load) for node in names)
    if not passing or uses != len(passing):
        return None
    return {keyword.arg for call in passing for keyword in call.keywords if keyword.arg is not None}


def _is_double_star(keyword: ast.keyword, name: str) -> bool:
    return keyword.arg is None and isinstance(keyword.value, ast.Name) and keyword.value.id == name


def kinds_of(annotation: Any) -> set[str] | None:
    """Returns what an annotation allows of ``number``, ``bool``, ``text``, ``dict`` and ``list``.

    None if it allows other things as well, or says nothing.
    """
    kinds = set()
    for member in _members(annotation):
        kind = next(
            (name for name, types_ in _KINDS.items() if (get_origin(member) or member) in types_),
            None,
        )
        if kind is None:
            return None
        kinds.add(kind)
    return kinds - {'none'} or None


def kind_of(value: Any) -> str | None:
    """Returns which of the kinds of :func:`kinds_of` a value is; None for another."""
    if isinstance(value, bool):
        return 'bool'
    if isinstance(value, (int, float)):
        return 'number'
    if isinstance(value, str):
        return 'text'
    return (
        'dict' if isinstance(value, dict) else 'list' if isinstance(value, (list, tuple)) else None
    )


def _members(annotation: Any) -> Iterator[Any]:
    if get_origin(annotation) in (Union, types.UnionType):
        for member in get_args(annotation):
            yield from _members(member)
    else:
        yield annotation
