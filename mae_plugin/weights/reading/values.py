"""What a pickle may be made of: data, and the records that stand for other things while it is
read.
"""

from __future__ import annotations

from collections import Counter, OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import torch

from ...utils._compat.torch import get_metadata

_MAX_DEPTH = 100
# Values counted as often as they are reached, since code that follows every reference takes so
# long.
_MAX_VALUES = 5_000_000
# From here on, different integers have the same hash.
_MAX_KEY = 2**61 - 1


class RefusedName(ValueError):
    """A pickle names a type or function that checkpoints do not need.

    Attributes:
        name: with its module, in printable characters.
    """

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.name = printable(name).replace(' ', '?')


def printable(text: str, length: int = 120) -> str:
    """The beginning of a text from a file, on one line and without what a terminal or a log cannot
    show.
    """
    return ''.join(c if c.isprintable() else '?' for c in ' '.join(text.split())[:length])


@dataclass(frozen=True, slots=True)
class Name:
    """A module and a name in it, joined by a dot."""

    path: str


@dataclass(slots=True)
class Unfinished:
    """A value that a pickle creates empty and fills afterwards.

    Attributes:
        finish: makes the value from the state that the pickle gives.
        places: where the memo refers to the value.
    """

    finish: Callable[[object], object]
    places: list[int] = field(default_factory=list)


def checked_key(key: object) -> object:
    """Returns a key of a dict or a member of a set.

    Raises:
        ValueError: unless it is a string, number, None or a flat tuple of those, whose hashes take
            no time to compute.
    """
    for part in key if type(key) is tuple else (key,):
        if type(part) not in (str, bytes, int, float, bool, type(None)):
            raise ValueError(f'a key in it is a {type(part).__name__}')
        if type(part) is int and abs(part) >= _MAX_KEY:
            raise ValueError('a key in it is too large a number')
        if type(part) is str and not part.isascii():
            part.encode()  # raises UnicodeEncodeError for what cannot be printed
    return key


def checked_metadata(state: object) -> OrderedDict[str, dict]:
    """What a module notes about its weights, ``_metadata`` of their OrderedDict; everything else is
    refused.
    """
    notes = state.get('_metadata') if type(state) is dict and len(state) == 1 else None
    if type(notes) not in (dict, OrderedDict):
        raise ValueError('it sets attributes of an OrderedDict')
    if not all(type(name) is str and type(note) is dict for name, note in notes.items()):
        raise ValueError('what it notes about its weights is not a dict for each module')
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


def check_plain(value: object) -> None:
    """Raises ValueError if there is anything but data in a value, or if it is too deep or refers to
    itself.
    """
    known: dict[int, tuple[int, int]] = {}

    def measure(value: object, depth: int) -> tuple[int, int]:
        kind = type(value)
        if kind in _VALUES or issubclass(kind, np.generic):
            return 1, 0
        if kind not in _CONTAINERS:
            what = (
                f'the name {value.path}'
                if kind is Name
                else f'something unfinished ({kind.__name__})'
            )
            raise ValueError(f'there is {what} where data belong')
        if id(value) in known:
            count, height = known[id(value)]
        elif depth > _MAX_DEPTH:
            raise ValueError('its parts contain each other too deeply, or themselves')
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
            raise ValueError('its parts contain each other too deeply, or too often')
        return count, height

    measure(value, 0)
