"""From a folder or an archive to tar files that training reads at full speed."""

from __future__ import annotations

import bz2
import functools
import gzip
import hashlib
import io
import json
import lzma
import multiprocessing
import os
import shutil
import tarfile
import zipfile
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_EXCEPTION, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import asdict, dataclass
from pathlib import Path

import simplejpeg
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from ..checkpoints.files import write_atomically
from .crop import resize
from .decode import EncodedImage
from .folder import IMAGE_EXTENSIONS, scan_folder
from .shards import member_key, read_member, scan_shard

Members = list[tuple[str, object, str | None]]
"""Names of images, where each is found, by whatever the function beside them reads it, and labels kept beside them."""

_COMPRESSED = {b'\x1f\x8b': gzip.open, b'BZ': bz2.open, b'\xfd7': lzma.open}


@dataclass(frozen=True)
class Plan:
    """What is to be made; a later start goes on only with the same one.

    Attributes:
        source: folder, zip or tar file.
        inside: folder within the source to take images from; their names count from there.
        size: length in pixels that the shorter side of larger images is reduced to; None leaves all as they are.
        quality: of the JPEGs that reduced images are written as, 1 to 100.
        per_shard: images in a tar file.
        extensions: endings of image files.

    Raises:
        FileNotFoundError: if there is no such source.
        ValueError: for a number out of range.
    """

    source: str
    inside: str = ''
    size: int | None = None
    quality: int = 95
    per_shard: int = 2000
    extensions: Sequence[str] = IMAGE_EXTENSIONS

    def __post_init__(self) -> None:
        if not os.path.exists(self.source):
            raise FileNotFoundError(f'there is no folder or archive {self.source}')
        object.__setattr__(self, 'source', os.path.abspath(self.source))
        object.__setattr__(self, 'inside', self.inside.strip('/'))
        object.__setattr__(self, 'extensions', sorted(extension.lower() for extension in self.extensions))
        if self.size is not None and self.size < 1:
            raise ValueError(f'size={self.size} is out of range: it is the length of the shorter side in pixels')
        if not 1 <= self.quality <= 100:
            raise ValueError(f'quality={self.quality} is out of range: it goes from 1 to 100')
        if self.per_shard < 1:
            raise ValueError(f'per_shard={self.per_shard} is out of range: a tar file holds at least one image')


def prepare(plan: Plan, target: str | Path, workers: int | None = None) -> dict:
    """Writes ``shard-00000.tar`` and so on and ``manifest.json`` into a folder, in parallel.

    Names keep their folders, so that class folders stay labels, as do the ``.cls`` and ``.json`` members of a tar file,
    which become ``.cls``. Every image is decoded once to see that it can be;
    those that cannot are left out and listed. After a kill the same call goes on where it was: a shard is there whole
    or not at all, and with the same plan it is always the same to the last byte.

    Args:
        plan: what to make.
        target: a new folder, or one that the same plan was begun in.
        workers: processes; one for each core if left out.

    Returns:
        The manifest: ``plan``, ``images``, ``bytes``, ``shards`` with ``file``, ``images``, ``bytes`` and ``sha256`` of
        each, and ``skipped`` with ``name`` and ``reason`` of each image that was left out.

    Raises:
        FileNotFoundError: if there is no image in the source.
        ValueError: if the target holds anything else, or the source has changed since.
        RuntimeError: if the system killed a worker.
    """
    target = Path(target)
    if not (target / 'plan.json').is_file() and target.exists() and any(target.iterdir()):
        raise ValueError(f'{target} is not empty; choose a new folder')
    parts = target / 'parts'
    target.mkdir(parents=True, exist_ok=True)
    _agree(target / 'plan.json', asdict(plan), f'{target} was begun with another plan')
    manifest = target / 'manifest.json'
    if manifest.is_file():
        return json.loads(manifest.read_text())
    parts.mkdir(exist_ok=True)
    members, read = _open_source(plan, parts)
    if not members:
        raise FileNotFoundError(f'there is no image in {os.path.join(plan.source, plan.inside)}')
    names = hashlib.sha256('\0'.join(name for name, *_ in members).encode(errors='surrogateescape')).hexdigest()
    _agree(parts / 'names.json', names, f'{plan.source} holds other images than when {target} was begun')

    groups = [members[start : start + plan.per_shard] for start in range(0, len(members), plan.per_shard)]
    reports = [parts / f'{number:05d}.json' for number in range(len(groups))]
    _write_shards(plan, groups, [target / f'shard-{report.stem}.tar' for report in reports], reports, read, workers)
    shards = [json.loads(report.read_text()) for report in reports]
    skipped = [fault for shard in shards for fault in shard.pop('skipped')]
    totals = {key: sum(shard[key] for shard in shards) for key in ('images', 'bytes')}
    result = dict(plan=asdict(plan), **totals, shards=shards, skipped=skipped)
    write_atomically(manifest, _json(result))
    shutil.rmtree(parts)
    return result


def _agree(path: Path, content: object, otherwise: str) -> None:
    """Writes a note, or raises ValueError if one is there that says something else."""
    if not path.is_file():
        write_atomically(path, _json(content))
    elif path.read_bytes() != _json(content):
        raise ValueError(f'{otherwise} ({path}); choose a new folder')


def _json(content: object) -> bytes:
    return (json.dumps(content, indent=1) + '\n').encode()


def _open_source(plan: Plan, parts: Path) -> tuple[Members, Callable[[object], bytes]]:
    """The images of a source in alphabetical order, and how to read one."""
    extensions = tuple(plan.extensions)
    if os.path.isdir(plan.source):
        root = os.path.join(plan.source, plan.inside)
        return [(name, os.path.join(root, name), None) for name in scan_folder(root, extensions)[0]], _read_file
    if zipfile.is_zipfile(plan.source):
        names = [name for name in _zip(plan.source, os.getpid()).namelist() if name.lower().endswith(extensions)]
        members, read = [(name, name, None) for name in names], functools.partial(_read_zip, plan.source)
    else:
        path = _uncompressed(plan.source, parts / 'source.tar')
        members = [(name, (offset, size), label) for name, offset, size, label in scan_shard(path, extensions)]
        read = functools.partial(_read_tar, {}, path)
    prefix = f'{plan.inside}/' if plan.inside else ''
    inside = [member for member in members if member[0].startswith(prefix)]
    return sorted((name.removeprefix(prefix), *rest) for name, *rest in inside), read


def _read_file(path: str) -> bytes:
    return Path(path).read_bytes()


@functools.lru_cache(maxsize=1)
def _zip(path: str, process: int) -> zipfile.ZipFile:
    # An open file and its position cannot be shared by processes.
    return zipfile.ZipFile(path)


def _read_zip(path: str, name: str) -> bytes:
    return _zip(path, os.getpid()).read(name)


def _read_tar(open_files: dict, path: str, place: tuple[int, int]) -> bytes:
    return read_member(open_files, path, *place)


def _uncompressed(source: str, target: Path) -> str:
    """A tar file to read from any place in: the source, or what it holds if it is compressed, written beside."""
    with open(source, 'rb') as file:
        opener = _COMPRESSED.get(file.read(2))
    if opener is None or target.is_file():
        return source if opener is None else str(target)
    part = target.with_suffix('.part')
    with opener(source) as packed, open(part, 'wb') as file:
        shutil.copyfileobj(packed, file, 2**20)
    os.replace(part, target)
    return str(target)


def _write_shards(plan, groups, targets, reports, read, workers) -> None:
    """Writes the shards that have no report yet."""
    missing = [number for number, report in enumerate(reports) if not report.is_file()]
    if not missing:
        return
    done = multiprocessing.Value('q', sum(map(len, groups)) - sum(len(groups[number]) for number in missing))
    columns = (
        TextColumn('{task.description}'),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn('left'),
    )
    context = multiprocessing.get_context('fork')
    with ProcessPoolExecutor(workers, context, _share, (done,)) as pool:
        tasks = {
            pool.submit(_write_shard, plan, groups[number], targets[number], reports[number], read)
            for number in missing
        }
        with Progress(*columns, TimeRemainingColumn()) as progress:
            bar = progress.add_task('preparing images', total=sum(map(len, groups)), completed=done.value)
            while tasks:
                finished, tasks = wait(tasks, timeout=0.5, return_when=FIRST_EXCEPTION)
                progress.update(bar, completed=done.value)
                try:
                    for task in finished:
                        task.result()
                except BaseException as error:
                    pool.shutdown(cancel_futures=True)
                    if isinstance(error, BrokenProcessPool):
                        raise RuntimeError(
                            'the system killed a worker, perhaps for want of memory; start again with fewer workers to '
                            'go on from here'
                        ) from error
                    raise


def _share(done) -> None:
    global _done
    _done = done


def _write_shard(plan: Plan, members: Members, target: Path, report: Path, read: Callable[[object], bytes]) -> None:
    """Writes a tar file, and then a report of it, which says that it is whole."""
    skipped = []
    part = target.with_suffix('.part')
    with open(part, 'wb') as file:
        with tarfile.open(fileobj=file, mode='w') as tar:
            for name, place, label in members:
                try:
                    name, data = _fit(name, read(place), plan)
                # Decoders raise what they like at broken files.
                except Exception as error:
                    skipped.append(dict(name=name, reason=str(error) or type(error).__name__))
                else:
                    _add(tar, name, data)
                    if label is not None:
                        _add(tar, f'{member_key(name)}.cls', label.encode())
                with _done.get_lock():
                    _done.value += 1
        file.flush()
        os.fsync(file.fileno())
    written = part.read_bytes()
    os.replace(part, target)
    summary = dict(file=target.name, images=len(members) - len(skipped), bytes=len(written))
    write_atomically(report, _json({**summary, 'sha256': hashlib.sha256(written).hexdigest(), 'skipped': skipped}))


def _add(tar: tarfile.TarFile, name: str, content: bytes) -> None:
    member = tarfile.TarInfo(name)
    member.size = len(content)
    tar.addfile(member, io.BytesIO(content))


def _fit(name: str, data: bytes, plan: Plan) -> tuple[str, bytes]:
    """An image's name and content as they go into a shard."""
    try:
        image = EncodedImage(data, 'rgb')
        pixels = image.pixels()
    except ValueError:
        if plan.size is not None:
            raise
        # Of bands that are no colours; damaged files raise once more.
        EncodedImage(data, color_type='unchanged').pixels()
        return name, data
    shorter = min(image.size)
    if plan.size is None or shorter <= plan.size:
        return name, data
    size = [max(plan.size, round(side * plan.size / shorter)) for side in image.size]
    stem, ending = os.path.splitext(name)
    name = name if ending.lower() in ('.jpg', '.jpeg') else f'{stem}.jpg'
    return name, simplejpeg.encode_jpeg(resize(pixels, size), plan.quality, 'RGB', '420')
