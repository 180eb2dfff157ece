"""Files that look like checkpoints but try to run code, or hold types that no checkpoint needs."""

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


# The instructions of pickle, protocol 2, that are needed to write one by hand.


def name(path: str) -> bytes:
    """Returns the instruction for a module and a name in it, divided by a space."""
    return b'c' + path.encode().replace(b' ', b'\n') + b'\n'


def text(value: str) -> bytes:
    return b'X' + len(value.encode()).to_bytes(4, 'little') + value.encode()


def number(value: int) -> bytes:
    content = value.to_bytes(value.bit_length() // 8 + 1, 'little', signed=True)
    return b'\x8a' + bytes([len(content)]) + content


def items(kind: bytes, *parts: bytes) -> bytes:
    """Returns a tuple (kind ``b't'``), a list (``b'l'``) or a dict (``b'd'``)."""
    if kind == b't':
        return b'(' + b''.join(parts) + b't'
    return {b'l': b'](', b'd': b'}('}[kind] + b''.join(parts) + {b'l': b'e', b'd': b'u'}[kind]


def call(path: str, *arguments: bytes) -> bytes:
    return name(path) + items(b't', *arguments) + b'R'


def namespace(**attributes: bytes) -> bytes:
    pairs = [part for key, value in attributes.items() for part in (text(key), value)]
    return name('argparse Namespace') + b')\x81' + items(b'd', *pairs) + b'b'


def storage(elements: int, kind: str = 'FloatStorage', key: str = '0') -> bytes:
    return (
        items(
            b't', text('storage'), name(f'torch {kind}'), text(key), text('cpu'), number(elements)
        )
        + b'Q'
    )


def tensor(
    elements: int, size: list[int], stride: list[int], offset: int = 0, **options: str
) -> bytes:
    shape, steps = (items(b't', *map(number, values)) for values in (size, stride))
    hooks = call('collections OrderedDict')
    arguments = storage(elements, **options), number(offset), shape, steps, b'\x89', hooks
    return call('torch._utils _rebuild_tensor_v2', *arguments)


def write(path: Path, pickled: bytes, *storages: bytes, **records: bytes) -> None:
    """Writes a file in the format of ``torch.save``, which torch can read, with a given pickle."""
    with zipfile.ZipFile(path, 'w') as file:
        file.writestr('archive/data.pkl', b'\x80\x02' + pickled + b'.')
        file.writestr('archive/version', b'3\n')
        for key, content in enumerate(storages):
            file.writestr(f'archive/data/{key}', content)
        for record, content in records.items():
            file.writestr(f'archive/{record}', content)


CURRENT = call('__builtin__ getattr', name(HISTORY_BUFFER), text('current'))
OBJECT = call('numpy dtype', text('O8'), b'\x89', b'\x88')
BYTES = call('_codecs encode', text('x' * 8), text('latin1'))


def new_buffer(**state: bytes) -> bytes:
    return (
        name(HISTORY_BUFFER)
        + b')\x81'
        + items(b'd', *(p for k, v in state.items() for p in (text(k), v)))
        + b'b'
    )


def array(dtype: bytes, content: bytes = BYTES, shape: tuple[int, ...] = (1,)) -> bytes:
    code = call('_codecs encode', text('b'), text('latin1'))
    start = call(
        'numpy.core.multiarray _reconstruct', name('numpy ndarray'), items(b't', number(0)), code
    )
    return (
        start
        + items(b't', number(1), items(b't', *map(number, shape)), dtype, b'\x89', content)
        + b'b'
    )


def dtype(kind: str, *state: bytes) -> bytes:
    order = (number(3), text('<'), b'N', b'N', b'N', number(-1), number(-1), number(0))
    return call('numpy dtype', text(kind), b'\x89', b'\x88') + items(b't', *(state or order)) + b'b'


def statistics(function: bytes) -> bytes:
    """Returns a HistoryBuffer with a statistic, which mmengine adds to those of the class."""
    rows = dict(
        _log_history=array(dtype('f8')), _count_history=array(dtype('f8')), max_length=number(1)
    )
    return new_buffer(**rows, statistics_methods=items(b'd', text('evil'), function))


# numpy's description of 2 ** 20 numbers at an address.
MEMORY = items(
    b'd',
    *(text('data'), items(b't', number(4096), b'\x89')),
    *(text('shape'), items(b't', number(2**20))),
    *(text('typestr'), text('<f8')),
    *(text('version'), number(3)),
)


def class_attributes(kind: str) -> bytes:
    """Sets attributes of a class by torch's own function for tensors with attributes."""
    subclass = namespace(_log_history=items(b'l', namespace(as_subclass=CURRENT)))
    arguments = CURRENT, namespace(_log_history=items(b'l', name(kind))), items(b't', subclass)
    return call(
        'torch._tensor _rebuild_from_type_v2',
        *arguments,
        items(b'd', text('mean'), text('replaced')),
    )


# Each of these formerly ran code, or ended the process or the reading with a raw error.
ATTACKS = {
    'replace HistoryBuffer.mean': class_attributes(HISTORY_BUFFER),
    'plant an attribute on Tensor': class_attributes('torch Tensor'),
    'add to the statistics of all buffers': statistics(name('os system')),
    'read memory at an address': call(
        HISTORY_BUFFER,
        items(b'l', namespace(__array_interface__=MEMORY)),
        items(b'l', number(1)),
    ),
    'a layout that is a function': call('torch.serialization _get_layout', text('exec')),
    'an array of objects': array(OBJECT),
    'an array of subarrays of objects': array(
        dtype(
            'V8',
            number(3),
            text('|'),
            items(b't', OBJECT, items(b't', number(1))),
            b'N',
            b'N',
            number(8),
        )
    ),
    'a structure in a dtype of numbers': array(
        dtype(
            'f8',
            number(3),
            text('<'),
            b'N',
            items(b't', text('a')),
            items(b'd', text('a'), OBJECT),
            number(8),
        )
    ),
    'an array of strings': array(dtype('U2')),
    'an array beyond its bytes': array(dtype('f8'), shape=(2,)),
    'an array of a negative shape': array(dtype('f8'), shape=(-1,)),
    'a bytearray of 1 TB': call('__builtin__ bytearray', number(2**40)),
    'bytes of 1 TB': call('__builtin__ bytes', number(2**40)),
    'an array as a name': call('__builtin__ getattr', name(HISTORY_BUFFER), array(dtype('f8'))),
    'a list as the owner of a name': call('__builtin__ getattr', items(b'l'), text('mean')),
    'a string of a subclass as a name': call(
        '__builtin__ getattr', name(HISTORY_BUFFER), call('numpy str_', text('m'))
    ),
    'the dict of a class': call('__builtin__ getattr', name(HISTORY_BUFFER), text('__dict__')),
    'the state of a class': name(HISTORY_BUFFER) + items(b'd', text('mean'), number(1)) + b'b',
    'the state of a tensor': tensor(2, [2], [1]) + items(b'd', text('data'), number(1)) + b'b',
    'the state of a dict': items(b'd') + items(b'd', text('x'), number(1)) + b'b',
    'attributes of an OrderedDict': call('collections OrderedDict')
    + items(b'd', text('keys'), number(1))
    + b'b',
    'items of a class': name(HISTORY_BUFFER) + text('mean') + number(1) + b's',
    'a class as a value': items(b'd', text('x'), name('torch Tensor')),
    'a function as a value': items(b'd', text('x'), CURRENT),
    'a storage as a value': items(b'd', text('x'), storage(2)),
    'a Namespace that is called': namespace() + b')R',
    'an unfinished Namespace': name('argparse Namespace') + b')\x81',
    'a tensor beyond its storage': tensor(2, [3], [1]),
    'a tensor before its storage': tensor(2, [2], [1], offset=-1),
    'a tensor of a negative stride': tensor(2, [2], [-1], offset=1),
    'a tensor that repeats a number 10 ** 12 times': tensor(2, [10**12], [0]),
    'a tensor whose size overflows': tensor(2, [2**40, 2**40], [0, 0]),
    'an empty tensor whose size overflows': tensor(2, [0, 2**40, 2**40], [0, 0, 0]),
    'a meta tensor whose size overflows': call(
        'torch._utils _rebuild_meta_tensor_no_storage',
        name('torch float32'),
        items(b't', number(2**62), number(2)),
        items(b't', number(1), number(1)),
        b'\x89',
    ),
    'a tensor of 100 dimensions': tensor(2, [1] * 100, [1] * 100),
    'a storage beyond its record': tensor(4, [2], [1]),
    'a storage beyond the file': tensor(2**40, [2], [1]),
    'a storage without a record': tensor(2, [2], [1], key='../0'),
    'a storage of two types': items(
        b'l', tensor(2, [2], [1]), tensor(2, [2], [1], kind='IntStorage')
    ),
    'a quantized tensor': call('torch._utils _rebuild_qtensor', tensor(2, [2], [1])),
    'a sparse tensor': call('torch._utils _rebuild_sparse_tensor', tensor(2, [2], [1])),
    'hooks of a tensor': call(
        'torch._utils _rebuild_parameter',
        tensor(2, [2], [1]),
        b'\x89',
        items(b'd', text('x'), number(1)),
    ),
    'a default that is a function': call('collections defaultdict', name('os getcwd')),
    'a key that takes for ever to hash': items(b'd', b')' + b'q\x01h\x01\x86' * 60, number(1)),
    'a key that is a tensor': items(b'd', tensor(2, [2], [1]), number(1)),
    'a key of half a character': items(b'd', b'X\x03\x00\x00\x00\xed\xa0\x80', number(1)),
    'many keys of one hash': items(b'd', *(number(i * (2**61 - 1)) + b'N' for i in range(1, 9))),
    'a billion laughs': b')' + b'q\x01h\x01\x86' * 60,
    'a deep nest': b')' + b'\x85' * 10_000,
    'a list in itself': b']q\x01h\x01a',
    'a Namespace in itself': name('argparse Namespace') + b')\x81q\x01}' + text('x') + b'h\x01sb',
    'a name from the stack that is no string': number(1) + number(2) + b'\x93',
    'an empty stack': b'R',
    'a stack below a mark': b'](a',
    'something left over': b'NN',
    'an unknown instruction': b'N0N',
    'extensions': b'\x82\x01',
    'instances': b'(' + text('x') + b'ios\nsystem\n',
    'objects': b'(' + name('os system') + text('true') + b'o',
    'an integer of a million digits': b'\x8b' + (10**6).to_bytes(4, 'little') + b'\x01' * 10**6,
    'a memo that was not written': b'h\x07',
    'a string that ends too late': b'X\xff\xff\xff\xff' + b'x',
}


def pieces_of_attacks() -> list[bytes]:
    """Returns meaningful parts of pickles, to be inserted where they do not belong."""
    names = (
        'os system',
        '__builtin__ getattr',
        '__builtin__ eval',
        HISTORY_BUFFER,
        'argparse Namespace',
        'torch Tensor',
    )
    return [
        *ATTACKS.values(),
        *map(name, names),
        b')',
        b'R',
        b'b',
        b'\x81',
        b'Q',
        b'h\x00',
        b'q\x00',
        b'(',
        b't',
        b'u',
        b's',
    ]
