"""Finds the arguments of a class from the signatures of its constructors."""

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

# Constructors that pass their further keyword arguments to a function, not to their parent.
_PASSED_TO = {CheckpointHook: Runner.save_checkpoint}
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
    """Returns the arguments of a class or function, with annotations; None if it accepts any.

    If a constructor only passes its further keyword arguments (``**kwargs``) to its parent's
    constructor, they are those of the parent.
    """
    if not inspect.isclass(kind):
        names, is_open = _parameters(kind)
        return None if is_open else names
    found: dict[str, Any] = {}
    # Arguments that a subclass sets itself, so nobody else can.
    fixed: set[str] = set()
    # From the class to its ancestors, as long as constructors pass on their keyword arguments.
    for base in kind.__mro__:
        constructor = base.__dict__.get('__init__')
        if constructor is None:
            continue
        if base is object:
            return None
        try:
            names, is_open = _parameters(constructor)
        except (TypeError, ValueError):
            # A constructor written in C may have no signature.
            return None
        found = {**{name: hint for name, hint in names.items() if name not in fixed}, **found}
        if not is_open or base is nn.Module:
            return found
        if base in _PASSED_TO:
            return {**_parameters(_PASSED_TO[base])[0], **found}
        set_by_class = _set_by_class(constructor)
        if set_by_class is None:
            return None
        fixed |= set_by_class
    return None


def _parameters(function: Callable) -> tuple[dict[str, Any], bool]:
    """Returns the named parameters with annotations, and whether there are ``**kwargs``."""
    try:
        signature = inspect.signature(function, eval_str=True)
    except (NameError, AttributeError, SyntaxError):
        # An annotation may use a name that is only imported for type checkers.
        signature = inspect.signature(function)
    by_kind = signature.parameters.values()
    named = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    names = {
        parameter.name: parameter.annotation for parameter in by_kind if parameter.kind in named
    }
    names.pop('self', None)
    return names, any(parameter.kind is inspect.Parameter.VAR_KEYWORD for parameter in by_kind)


def _set_by_class(constructor: Callable) -> set[str] | None:
    """Returns the arguments that a constructor sets in the call of its parent's constructor.

    None if it uses its ``**kwargs`` in any other way than to pass them to its parent.
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
    # Calls of the parent's constructor with `**kwargs`.
    passing = [
        call for call in calls if any(_is_double_star(keyword, name) for keyword in call.keywords)
    ]
    # Adding to them, as in ``kwargs |= ...``, does not use their content.
    names = [node for node in ast.walk(function) if isinstance(node, ast.Name) and node.id == name]
    uses = sum(isinstance(node.ctx, ast.Load) for node in names)
    if not passing or uses != len(passing):
        return None
    return {keyword.arg for call in passing for keyword in call.keywords if keyword.arg is not None}


def _is_double_star(keyword: ast.keyword, name: str) -> bool:
    """Returns whether an argument of a call is ``**name``."""
    return keyword.arg is None and isinstance(keyword.value, ast.Name) and keyword.value.id == name


def kinds_of(annotation: Any) -> set[str] | None:
    """Returns the kinds that an annotation allows: number, bool, text, dict and list.

    None if it allows other types as well, or is missing.
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
    """Returns the kind of a value as in :func:`kinds_of`; None for another type."""
    if isinstance(value, bool):
        return 'bool'
    if isinstance(value, (int, float)):
        return 'number'
    if isinstance(value, str):
        return 'text'
    if isinstance(value, dict):
        return 'dict'
    return 'list' if isinstance(value, (list, tuple)) else None


def _members(annotation: Any) -> Iterator[Any]:
    """Yields the members of a union, or the annotation itself."""
    if get_origin(annotation) in (Union, types.UnionType):
        for member in get_args(annotation):
            yield from _members(member)
    else:
        yield annotation
