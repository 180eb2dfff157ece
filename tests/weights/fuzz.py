"""Damages checkpoints at random and reads them in a process with limited memory.

    python -m tests.weights.fuzz FOLDER --number 1000

Reads every ``.pth`` file of FOLDER that many times, each time with other damage, and prints the
number of refused and of accepted files.
"""

from __future__ import annotations

import argparse
import builtins
import collections
import io
import json
import pickletools
import random
import resource
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import torch
from mae_plugin.weights import check_whole
from mae_plugin.weights.loading import load_from_local
from mae_plugin.weights.reading.torch_files import read_torch_file
from mmengine.logging import HistoryBuffer

from .crafted import pieces_of_attacks

PLAIN = (str, bytes, int, float, bool, complex, type(None), torch.Tensor, np.ndarray)
PLAIN += (torch.dtype, torch.device, torch.Size)
CONTAINERS = (list, tuple, set, frozenset, dict, collections.OrderedDict, collections.Counter)
MEMORY = 1 << 30


def process() -> dict[str, int]:
    """Returns all state of this process that a file could change: attributes by name."""
    owners = (
        HistoryBuffer,
        torch.Tensor,
        torch.nn.Parameter,
        argparse.Namespace,
        collections.OrderedDict,
        builtins,
        np,
    )
    found = {
        f'{owner.__name__}.{name}': id(value)
        for owner in owners
        for name, value in vars(owner).items()
    }
    found |= {
        f'a statistic {name}': id(method)
        for name, method in HistoryBuffer._statistics_methods.items()
    }
    # Python's own state: warnings already shown, and the last value of an interactive session.
    return {
        name: value
        for name, value in found.items()
        if name.rpartition('.')[2] not in ('__warningregistry__', '_')
    }


def same(read: object, written: object) -> bool:
    """Returns whether two values have the same types and content, and hold nothing but data."""
    kind = type(read)
    if kind is not type(written):
        return False
    if kind is torch.Tensor:
        if (read.dtype, read.shape) != (written.dtype, written.shape):
            return False
        as_bytes = [tensor.contiguous().flatten().view(torch.uint8) for tensor in (read, written)]
        return torch.equal(*as_bytes)
    if kind is np.ndarray or issubclass(kind, np.generic):
        return (
            read.dtype == written.dtype
            and read.shape == written.shape
            and read.tobytes() == written.tobytes()
        )
    if issubclass(kind, dict):
        noted = [getattr(value, '_metadata', None) for value in (read, written)]
        return (
            list(read) == list(written)
            and same(*noted)
            and all(same(read[key], written[key]) for key in read)
        )
    if kind in (list, tuple):
        return len(read) == len(written) and all(map(same, read, written))
    return kind in PLAIN + CONTAINERS and (read == written or (read != read and written != written))


def is_plain(value: object, depth: int = 0) -> bool:
    """Returns whether a value holds nothing but data, and can be visited completely."""
    kind = type(value)
    if kind in CONTAINERS and depth < 200:
        parts = [*value.keys(), *value.values()] if issubclass(kind, dict) else value
        return all(is_plain(part, depth + 1) for part in parts)
    if kind is np.ndarray or issubclass(kind, np.generic):
        return value.dtype.kind in 'biufc'
    return kind in PLAIN


def damaged_files(whole: bytes, rng: random.Random) -> Iterator[bytes]:
    """Yields a file with damage as of disks, networks and people; checksums are unchanged."""
    positions = _outside_of_storages(whole)
    while True:
        content = bytearray(whole)
        kind = rng.randrange(6)
        for _ in range(rng.choice((1, 1, 1, 2, 8))):
            place = rng.choice(positions) if rng.random() < 0.7 else rng.randrange(len(content))
            if kind == 0:
                content[place] = rng.randrange(256)
            else:
                content[place] ^= 1 << rng.randrange(8)
        if kind == 1:
            del content[rng.randrange(len(content)) :]
        elif kind == 2:
            start = rng.randrange(len(content))
            content[start : start + rng.randrange(1, 4096)] = b''
        elif kind == 3:
            start = rng.randrange(len(content))
            length = len(content[start : start + rng.randrange(1, 4096)])
            content[start : start + length] = bytes(length)
        yield bytes(content)


def _outside_of_storages(whole: bytes) -> list[int]:
    """Returns positions of pickles and headers, which are a small part of a checkpoint."""
    if not zipfile.is_zipfile(io.BytesIO(whole)):
        return list(range(len(whole)))
    inside = set()
    with zipfile.ZipFile(io.BytesIO(whole)) as file:
        for record in file.infolist():
            if '/data/' in record.filename:
                start = record.header_offset + 30 + len(record.filename)
                inside.update(range(start, start + record.file_size))
    return [position for position in range(len(whole)) if position not in inside]


def other_pickles(whole: bytes, rng: random.Random) -> Iterator[bytes]:
    """Yields a file with a changed pickle and valid checksums."""
    with zipfile.ZipFile(io.BytesIO(whole)) as file:
        records = {record.filename: file.read(record) for record in file.infolist()}
    (name,) = (name for name in records if name.endswith('/data.pkl'))
    instructions, strange = _instructions(records[name]), pieces_of_attacks()
    while True:
        if rng.random() < 0.3:
            content = bytearray(records[name])
            for _ in range(rng.choice((1, 1, 2, 8))):
                content[rng.randrange(len(content))] = rng.randrange(256)
        else:
            parts = list(instructions)
            for _ in range(rng.choice((1, 1, 2, 4))):
                if parts:
                    _splice(parts, strange, rng)
            content = b''.join(parts)
        yield _zipped({**records, name: bytes(content)})


def _instructions(pickled: bytes) -> list[bytes]:
    try:
        starts = [position for _, _, position in pickletools.genops(pickled)]
    # An attack may end in the middle of an instruction.
    except ValueError:
        starts = range(len(pickled))
    return [
        pickled[start:end] for start, end in zip(starts, [*starts[1:], len(pickled)], strict=True)
    ]


def _splice(parts: list[bytes], strange: list[bytes], rng: random.Random) -> None:
    place, other = rng.randrange(len(parts)), rng.randrange(len(parts))
    length = rng.choice((1, 1, 2, 5, 20))
    kind = rng.randrange(5)
    if kind == 0:
        del parts[place : place + length]
    elif kind == 1:
        parts[place:place] = parts[other : other + length]
    elif kind == 2:
        parts[place], parts[other] = parts[other], parts[place]
    elif kind == 3:
        parts[place : place + length] = [rng.choice(strange)]
    else:
        parts.insert(place, rng.choice(strange))


def _zipped(records: dict[str, bytes]) -> bytes:
    content = io.BytesIO()
    with zipfile.ZipFile(content, 'w') as file:
        for name, record in records.items():
            file.writestr(name, record)
    return content.getvalue()


def read_damaged(
    folder: Path, contents: Iterator[bytes], number: int, accepts: Callable[[object], bool]
) -> collections.Counter:
    """Reads damaged files by every loader.

    Raises:
        AssertionError: if a file gives neither a one-line error nor an accepted value.
    """
    came = collections.Counter()
    file = folder / 'damaged.bin'
    for _, content in zip(range(number), contents, strict=False):
        file.write_bytes(content)
        results = []
        for door in (read_torch_file, load_from_local, check_whole):
            try:
                results.append(door(str(file)))
            except (ValueError, FileNotFoundError) as error:
                assert type(error) in (ValueError, FileNotFoundError), repr(error)
                message = str(error)
                assert (
                    message.startswith(str(file))
                    and message.isprintable()
                    and len(message) < len(str(file)) + 400
                ), message
                results.append(error)
        refused = [isinstance(result, Exception) for result in results]
        # Each loader may refuse a value that the one before accepted, such as one that is no dict.
        assert refused[0] == refused[2] and refused[1] >= refused[0], results
        if not refused[0]:
            assert accepts(results[0]), f'a damaged file was read as another: {file}'
        came['refused' if refused[0] else 'read'] += 1
    file.unlink()
    return came


def fuzz(path: Path, folder: Path, number: int, seed: int) -> dict[str, collections.Counter]:
    """Reads a checkpoint ``number`` times with damage of each kind.

    An attack, which is refused undamaged, is read a tenth as often.

    Returns:
        How many files were refused and how many were read.
    """
    whole, rng = path.read_bytes(), random.Random(seed)
    has_checksums = zipfile.is_zipfile(path)
    try:
        written = read_torch_file(path)
    except ValueError:
        number, accepts = number // 10, is_plain
    else:
        accepts = (lambda read: same(read, written)) if has_checksums else is_plain
    came = dict(damaged=read_damaged(folder, damaged_files(whole, rng), number, accepts))
    if has_checksums:
        came['other pickles'] = read_damaged(folder, other_pickles(whole, rng), number, is_plain)
    return came


def every_bit(path: Path, folder: Path) -> collections.Counter:
    """Reads a checkpoint once for each of its bits, with that bit flipped."""
    whole, written = path.read_bytes(), read_torch_file(path)

    def changed() -> Iterator[bytes]:
        for position in range(8 * len(whole)):
            content = bytearray(whole)
            content[position // 8] ^= 1 << position % 8
            yield bytes(content)

    return read_damaged(folder, changed(), 8 * len(whole), lambda read: same(read, written))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('folder', type=Path)
    parser.add_argument('--number', type=int, default=1000, help='files with damage of each kind')
    parser.add_argument(
        '--every-bit', type=Path, metavar='FILE', help='also change each bit of this file'
    )
    parser.add_argument('--seed', type=int, default=0)
    args = parser.parse_args()
    files = sorted(args.folder.glob('*.pth'))
    in_use = int(Path('/proc/self/statm').read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (in_use + MEMORY, in_use + MEMORY))
    HistoryBuffer()  # with the first one, mmengine registers its statistics
    before = process()
    came = {file.name: fuzz(file, args.folder, args.number, args.seed) for file in files}
    if args.every_bit:
        came[args.every_bit.name] = {'every bit': every_bit(args.every_bit, args.folder)}
    changed = dict(process().items() ^ before.items())
    assert not changed, f'a file has changed the process: {", ".join(changed)}'
    print(json.dumps(came))


if __name__ == '__main__':
    main()
