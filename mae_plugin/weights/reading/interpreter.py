"""Reads a pickle as data: it cannot reach any class, function or attribute of the process.

The instructions of a pickle are executed on a stack of plain values. A name in it becomes a
:class:`~.values.Name`, a placeholder. Where the pickle calls a name, a function of a fixed table
checks the arguments and builds a plain value from them. Any other name is refused.
"""

from __future__ import annotations

import pickletools
from collections import OrderedDict
from collections.abc import Callable, Mapping
from typing import Any, BinaryIO

import torch

from ...utils._compat.torch import set_metadata
from .values import Name, RefusedName, Unfinished, check_plain, checked_key, checked_metadata

Makers = Mapping[str, Callable | torch.dtype | None]

# A checkpoint of ViT-H with its optimizer has fewer than 100,000.
_MAX_INSTRUCTIONS = 5_000_000


def read_pickle(
    stream: BinaryIO, makers: Makers, load_storage: Callable[[tuple], Any] | None = None
) -> Any:
    """Reads one pickle; ``stream`` is then at its end.

    Args:
        stream: a file, or an object with the same ``read``, ``readline`` and ``tell``.
        makers: the allowed names, as :data:`.constructors.MAKERS`.
        load_storage: returns the value of a persistent id; None if the pickle has none.

    Returns:
        Strings, numbers, None, lists, tuples, sets, dicts, tensors, arrays and other results of
        ``makers``.

    Raises:
        RefusedName: for a name outside of ``makers``.
        Exception: of any type, for a pickle that is damaged or does more than hold data.
    """
    value = _Machine(makers, load_storage).run(stream)
    check_plain(value)
    return value


class _Machine:
    """The machine that executes a pickle: its stack, the marks on the stack, and the memo."""

    def __init__(self, makers: Makers, load_storage: Callable[[tuple], Any] | None) -> None:
        self.makers = makers
        self.load_storage = load_storage
        self.stack: list[Any] = []
        self.below_marks: list[list[Any]] = []
        self.memo: dict[int, Any] = {}

    def run(self, stream: BinaryIO) -> Any:
        """Executes the instructions of a pickle; returns its value."""
        for number, (opcode, argument, _) in enumerate(pickletools.genops(stream)):
            if number > _MAX_INSTRUCTIONS:
                raise ValueError('it has too many instructions')
            if opcode.name in _DATA:
                self.stack.append(argument)
            elif opcode.name in _CONSTANTS:
                self.stack.append(_CONSTANTS[opcode.name])
            elif opcode.name in _INSTRUCTIONS:
                _INSTRUCTIONS[opcode.name](self, argument)
            elif opcode.name not in ('PROTO', 'FRAME', 'STOP'):
                raise ValueError(f'no checkpoint needs the instruction {opcode.name}')
        if len(self.stack) != 1 or self.below_marks:
            raise ValueError('it leaves values on the stack')
        return self.stack[0]

    def pop_to_mark(self) -> list[Any]:
        """Removes the values above the last mark from the stack, and returns them."""
        items, self.stack = self.stack, self.below_marks.pop()
        return items

    def mark(self, _: Any) -> None:
        """Puts a mark on the stack."""
        self.below_marks.append(self.stack)
        self.stack = []

    def put(self, place: int) -> None:
        """Stores the top of the stack in the memo."""
        self.memo[place] = value = self.stack[-1]
        # Completed values replace the unfinished ones in the memo.
        if type(value) is Unfinished:
            value.places.append(place)

    def memoize(self, _: Any) -> None:
        """Stores the top of the stack at the next position of the memo."""
        self.put(len(self.memo))

    def get(self, place: int) -> None:
        """Puts a value of the memo on the stack."""
        self.stack.append(self.memo[place])

    def empty_list(self, _: Any) -> None:
        """Puts an empty list on the stack."""
        self.stack.append([])

    def empty_dict(self, _: Any) -> None:
        """Puts an empty dict on the stack."""
        self.stack.append({})

    def empty_set(self, _: Any) -> None:
        """Puts an empty set on the stack."""
        self.stack.append(set())

    def frozen_set(self, _: Any) -> None:
        """Builds a frozenset from the values above the last mark."""
        members = frozenset(map(checked_key, self.pop_to_mark()))
        self.stack.append(members)

    def tuple_to_mark(self, _: Any) -> None:
        """Builds a tuple from the values above the last mark."""
        items = tuple(self.pop_to_mark())
        self.stack.append(items)

    def tuple_of(self, length: int) -> None:
        """Builds a tuple from the last values on the stack."""
        items = [self.stack.pop() for _ in range(length)]
        self.stack.append(tuple(reversed(items)))

    def append(self, _: Any) -> None:
        """Appends the top of the stack to the list below it."""
        item = self.stack.pop()
        self.target(list).append(item)

    def append_to_mark(self, _: Any) -> None:
        """Appends the values above the last mark to the list below it."""
        items = self.pop_to_mark()
        self.target(list).extend(items)

    def add_to_mark(self, _: Any) -> None:
        """Adds the values above the last mark to the set below it."""
        items = self.pop_to_mark()
        self.target(set).update(map(checked_key, items))

    def set_item(self, _: Any) -> None:
        """Sets one item of the dict below it."""
        value, key = self.stack.pop(), self.stack.pop()
        self.target(dict, OrderedDict)[checked_key(key)] = value

    def set_to_mark(self, _: Any) -> None:
        """Sets items of the dict below the last mark: keys and values alternate."""
        items = self.pop_to_mark()
        target = self.target(dict, OrderedDict)
        for key, value in zip(items[::2], items[1::2], strict=True):
            target[checked_key(key)] = value

    def target(self, *kinds: type) -> Any:
        """Returns the top of the stack if it is of one of these types, subclasses excluded."""
        if type(self.stack[-1]) not in kinds:
            raise ValueError(
                f'it adds to a {type(self.stack[-1]).__name__} as to a {kinds[0].__name__}'
            )
        return self.stack[-1]

    def name(self, argument: str) -> None:
        """Puts a name on the stack, given as module and name divided by a space."""
        module, _, name = argument.partition(' ')
        self.push_name(module, name)

    def name_from_stack(self, _: Any) -> None:
        """Puts a name on the stack, whose module and name are on it."""
        name, module = self.stack.pop(), self.stack.pop()
        self.push_name(module, name)

    def push_name(self, module: Any, name: Any) -> None:
        """Puts an allowed name on the stack, or the dtype that it stands for."""
        if type(module) is not str or type(name) is not str:
            raise ValueError('a name in it is not a string')
        path = f'{_TODAY.get(module, module)}.{name}'
        if path not in self.makers:
            raise RefusedName(path)
        value = self.makers[path]
        # A dtype is a value; a name of anything else is only a placeholder.
        self.stack.append(value if type(value) is torch.dtype else Name(path))

    def call(self, _: Any) -> None:
        """Calls the function that the table has for a name."""
        arguments, function = self.stack.pop(), self.stack.pop()
        if type(function) is not Name or type(arguments) is not tuple:
            raise ValueError('it calls something that is not a name')
        make = self.makers[function.path]
        if make is None:
            raise RefusedName(function.path)
        # A wrong number of arguments is a TypeError.
        try:
            self.stack.append(make(*arguments))
        except TypeError:
            raise ValueError(f'{function.path} has other arguments than in checkpoints') from None

    def build(self, _: Any) -> None:
        """Completes an unfinished value, or sets the notes beside a state dict."""
        state, value = self.stack.pop(), self.stack.pop()
        if type(value) is OrderedDict:
            set_metadata(value, checked_metadata(state))
        elif type(value) is Unfinished:
            # Other parts of the pickle may refer to the value by the memo.
            finished = value.finish(state)
            for place in value.places:
                if self.memo[place] is value:
                    self.memo[place] = finished
            value = finished
        else:
            raise ValueError(f'it sets attributes of a {type(value).__name__}')
        self.stack.append(value)

    def persistent(self, _: Any) -> None:
        """Puts the storage of a persistent id on the stack."""
        if self.load_storage is None:
            raise ValueError('it refers to tensors where there are none')
        self.stack.append(self.load_storage(self.stack.pop()))


# Instructions whose argument is the value, decoded by genops.
_DATA = {
    *(
        'BININT',
        'BININT1',
        'BININT2',
        'LONG1',
        'BINFLOAT',
        'BINUNICODE',
        'SHORT_BINUNICODE',
        'BINUNICODE8',
    ),
    *('BINBYTES', 'SHORT_BINBYTES', 'BINBYTES8', 'SHORT_BINSTRING', 'BINSTRING'),
}
_CONSTANTS = {'NONE': None, 'NEWTRUE': True, 'NEWFALSE': False, 'EMPTY_TUPLE': ()}
_INSTRUCTIONS: dict[str, Callable[[_Machine, Any], None]] = {
    'MARK': _Machine.mark,
    **dict.fromkeys(('BINPUT', 'LONG_BINPUT'), _Machine.put),
    **dict.fromkeys(('BINGET', 'LONG_BINGET'), _Machine.get),
    'MEMOIZE': _Machine.memoize,
    'BYTEARRAY8': lambda machine, content: machine.stack.append(bytes(content)),
    'EMPTY_LIST': _Machine.empty_list,
    'EMPTY_DICT': _Machine.empty_dict,
    'EMPTY_SET': _Machine.empty_set,
    'FROZENSET': _Machine.frozen_set,
    'TUPLE': _Machine.tuple_to_mark,
    'TUPLE1': lambda machine, _: machine.tuple_of(1),
    'TUPLE2': lambda machine, _: machine.tuple_of(2),
    'TUPLE3': lambda machine, _: machine.tuple_of(3),
    'APPEND': _Machine.append,
    'APPENDS': _Machine.append_to_mark,
    'ADDITEMS': _Machine.add_to_mark,
    'SETITEM': _Machine.set_item,
    'SETITEMS': _Machine.set_to_mark,
    'GLOBAL': _Machine.name,
    'STACK_GLOBAL': _Machine.name_from_stack,
    **dict.fromkeys(('REDUCE', 'NEWOBJ'), _Machine.call),
    'BUILD': _Machine.build,
    'BINPERSID': _Machine.persistent,
}
# Modules of Python 2, whose names protocols up to 2 still use.
_TODAY = {'__builtin__': 'builtins', 'copy_reg': 'copyreg'}
