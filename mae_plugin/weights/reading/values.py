"""The values that a pickle may hold: data, and the placeholders of its names while it is read."""

from __future__ import annotations

from collections import Counter, OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

from ...utils._compat.torch import get_metadata

_MAX_DEPTH = 100
# Values are counted as often as they are reached, which is the time that code needs to visit them.
_MAX_VALUES = 5_000_000
# From here on, different integers have the same hash.
_MAX_KEY = 2**61 - 1


class RefusedName(ValueError):
    """Raised when a pickle names a type or function that checkpoints do not need.

    Attributes:
        name: the name with its module, in printable characters.
    """

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.name = one_line(name).replace(' ', '?')


def one_line(text: str, length: int = 120) -> str:
    """Returns the beginning of a text from a file, on one line and in printable characters."""
    return ''.join(c if c.isprintable() else '?' for c in ' '.join(text.split())[:length])


@dataclass(frozen=True, slots=True)
class Name:
    """A module and a name in it, joined by a dot."""

    path: str


@dataclass(slots=True)
class Unfinished:
    """A value that a pickle creates empty and fills later.

    Attributes:
        finish: builds the value from the state in the pickle.
        places: positions of the value in the memo.
    """

    finish: Callable[[Any], Any]
    places: list[int] = field(default_factory=list)


def checked_key(key: Any) -> Any:
    """Returns a key of a dict or a member of a set.

    Raises:
        ValueError: unless it is a string, number, None or a flat tuple of these, whose hashes are
            fast to compute.
    """
    for part in key if type(key) is tuple else (key,):
        if type(part) not in (str, bytes, int, float, bool, type(None)):
            raise ValueError(f'a key in it is a {type(part).__name__}')
        if type(part) is int and abs(part) >= _MAX_KEY:
            raise ValueError('a key in it is too large a number')
        if type(part) is str and not part.isascii():
            part.encode()  # raises UnicodeEncodeError, a ValueError, for unprintable characters
    return key


def checked_metadata(state: Any) -> OrderedDict[str, dict]:
    """Returns the notes of modules beside a state dict, ``_metadata``; refuses other attributes."""
    notes: Any = state.get('_metadata') if type(state) is dict and len(state) == 1 else None
    if type(notes) not in (dict, OrderedDict):
        raise ValueError('it sets attributes of an OrderedDict')
    if not all(type(name) is str and type(note) is dict for name, note in notes.items()):
        raise ValueError('the notes about its weights are not a dict for each module')
    return OrderedDict(notes)


_VALUES = frozenset(
    (
        str,
        bytes,
        int,
        float,
        bool,
        complex,
        type(None),
        torch.Tensor,
        torch.dtype,
        torch.device,
        torch.Size,
        np.ndarray,
    )
)
_CONTAINERS = (list, tuple, set, frozenset, dict, OrderedDict, Counter)


def check_plain(value: Any) -> None:
    """Raises ValueError if a value holds anything but data, is too deep or contains itself."""
    known: dict[int, tuple[int, int]] = {}

    def measure(value: Any, depth: int) -> tuple[int, int]:
        """Returns the number of values in a value, and the depth of its deepest one."""
        kind = type(value)
        if kind in _VALUES or issubclass(kind, np.generic):
            return 1, 0
        if kind not in _CONTAINERS:
            if kind is Name:
                raise ValueError(f'it holds the name {value.path} in place of data')
            raise ValueError(f'it holds an unfinished {kind.__name__} in place of data')
        if id(value) in known:
            count, height = known[id(value)]
        elif depth > _MAX_DEPTH:
            raise ValueError('its containers are nested too deeply, or contain themselves')
        else:
            # The keys of dicts and the members of sets were checked when they were added.
            parts = list(value.values()) if isinstance(value, dict) else value
            if kind is OrderedDict and (notes := get_metadata(value)) is not None:
                parts.append(notes)
            count, height = 1 + len(value), 0
            for part in parts:
                more, above = measure(part, depth + 1)
                count, height = count + more, max(height, above)
            height += 1
            known[id(value)] = count, height
        if height > _MAX_DEPTH or count > _MAX_VALUES:
            raise ValueError('its containers are nested too deeply, or hold too many values')
        return count, height

    measure(value, 0)
