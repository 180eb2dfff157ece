"""Files that look like checkpoints and try to do something, or hold something that no checkpoint needs."""

from __future__ import annotations

import zipfile
from pathlib import Path

HISTORY_BUFFER = 'mmengine.logging.history_buffer HistoryBuffer'


class Call:
    """Pickles as a call of any function."""

    def __init__(self, function, *args) -> None:
        self.call = (function, args)

    def __reduce__(self):
        return self.call


# The few instructions of pickle, protocol 2, that are needed to write one by hand.


def name(path: str) -> bytes:
    """A module and a name in it, divided by a space."""
    return b'c' + path.encode().replace(b' ', b'\n') + b'\n'


def text(value: str) -> bytes:
    return b'X' + len(value.encode()).to_bytes(4, 'little') + value.encode()


def number(value: int) -> bytes:
    content = value.to_bytes(value.bit_length() // 8 + 1, 'little', signed=True)
    return b'\x8a' + bytes([len(content)]) + content


def items(kind: bytes, *parts: bytes) -> bytes:
    """A tuple (kind ``b't'``), or a list (``b'l'``) or dict (``b'd'``)."""
    if kind == b't':
        return b'(' + b''.join(parts) + b't'
    return {b'l': b'](', b'd': b'}('}[kind] + b''.join(parts) + {b'l': b'e', b'd': b'u'}[kind]


def call(path: str, *arguments: bytes) -> bytes:
    return name(path) + items(b't', *arguments) + b'R'


def namespace(**attributes: bytes) -> bytes:
    pairs = [part for key, value in attributes.items() for part in (text(key), value)]
    return name('argparse Namespace') + b')\x81' + items(b'd', *pairs) + b'b'


def storage(elements: int, kind: str = 'FloatStorage', key: str = '0') -> bytes:
    return items(b't', text('storage'), name(f'torch {kind}'), text(key), text('cpu'), number(elements)) + b'Q'


def tensor(elements: int, size: list[int], stride: list[int], offset: int = 0, **options: str) -> bytes:
    shape, steps = (items(b't', *map(number, values)) for values in (size, stride))
    hooks = call('collections OrderedDict')
    arguments = storage(elements, **options), number(offset), shape, steps, b'\x89', hooks
    return call('torch._utils _rebuild_tensor_v2', *arguments)


def write(path: Path, pickled: bytes, *storages: bytes, **records: bytes) -> None:
    """Writes a file as ``torch.save`` would, with a pickle of one's own."""
    with zipfile.ZipFile(path, 'w') as file:
        file.writestr('archive/data.pkl', b'\x80\x02' + pickled + b'.')
        for key, content in enumerate(storages):
            file.writestr(f'archive/data/{key}', content)
        for record, content in records.items():
            file.writestr(f'archive/{record}', content)
