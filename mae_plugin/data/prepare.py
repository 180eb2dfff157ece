"""From a folder or an archive to tar files that training reads at full speed."""

from __future__ import annotations

import hashlib
import io
import json
import multiprocessing
import os
import shutil
import tarfile
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_EXCEPTION, wait
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import NamedTuple

import simplejpeg
from mmengine.logging import print_log
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from ..utils.atomic_files import check_folder, staged_file, write_atomically
from ..utils.locks import FileLock, LockedError
from ..utils.pools import process_pool
from ..utils.printable import printable
from .crop import resize
from .decoding.decode import EncodedImage
from .sources.contents import open_source
from .sources.entries import IMAGE_EXTENSIONS, class_folders, no_image
from .sources.labels import member_key
from .sources.open_files import is_out_of_descriptors, out_of_descriptors

_LOCK = '.prepare.lock'


class Member(NamedTuple):
    """An image of the source.

    Attributes:
        name: within the source.
        place: where it is found, by whatever function reads it.
        label: kept beside it.
        jpeg: its name once it is reduced and hence a JPEG.
    """

    name: str
    place: object
    label: str | None
    jpeg: str


@dataclass(frozen=True)
class Plan:
    """What is to be made; a later start goes on only with the same one.

    Attributes:
        source: folder, zip or tar file.
        inside: folder within the source to take images from; their names count from there.
        size: length in pixels that the shorter side of larger images is reduced to; None leaves all
            as they are.
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
        if not os.path.isdir(self.source) and not os.path.isfile(self.source):
            raise FileNotFoundError(f'there is no folder or archive {self.source}')
        object.__setattr__(self, 'source', os.path.abspath(self.source))
        object.__setattr__(self, 'inside', self.inside.strip('/'))
        object.__setattr__(
            self, 'extensions', sorted(extension.lower() for extension in self.extensions)
        )
        if self.size is not None and self.size < 1:
            raise ValueError(
                f'size={self.size} is out of range: it is the length of the shorter side in pixels'
            )
        if not 1 <= self.quality <= 100:
            raise ValueError(f'quality={self.quality} is out of range: it goes from 1 to 100')
        if self.per_shard < 1:
            raise ValueError(
                f'per_shard={self.per_shard} is out of range: a tar file holds at least one image'
            )


def prepare(plan: Plan, target: str | Path, workers: int | None = None) -> dict:
    """Writes ``shard-00000.tar`` and so on and ``manifest.json`` into a folder, in parallel.

    Names keep their folders, so that class folders stay labels, also those without images. So do
    the ``.cls`` and ``.json`` members of a tar file, which become ``.cls``. Every image is decoded
    once to see that it can be; those that cannot are left out and listed. After a kill the same
    call goes on where it was: a shard is there whole or not at all, and with the same plan it is
    always the same to the last byte.

    Args:
        plan: what to make.
        target: a new folder, or one that the same plan was begun in.
        workers: processes; one for each core if left out.

    Returns:
        The manifest: ``plan``, ``images``, ``bytes``, ``shards`` with ``file``, ``images``,
        ``bytes`` and ``sha256`` of each, ``skipped`` with ``name`` and ``reason`` of each image
        that was left out, and ``left_out`` with reasons, numbers and examples of other entries (see
        :mod:`.entries`).

    Raises:
        FileNotFoundError: if there is no image in the source.
        ValueError: if the target holds anything else or cannot be written, or the source has
            changed since.
        RuntimeError: if the system killed a worker.
    """
    target = Path(target)
    check_folder(target)
    _check_new(target)
    lock = FileLock(target / _LOCK)
    try:
        lock.acquire()
    except LockedError as error:
        raise ValueError(
            f'{error.holder} is writing to {target} already; wait until it has ended, or choose '
            'another folder'
        ) from None
    except OSError as error:
        # A file system without locks, or a full one, which the first shard will tell.
        print_log(
            f'Nothing keeps a second process out of {target}, as it cannot be locked ({error}).',
            'current',
        )
    try:
        # Another process may have begun since.
        _check_new(target)
        return _prepare(plan, target, workers)
    finally:
        lock.release(remove=True)


def _check_new(target: Path) -> None:
    """Raises ValueError if a folder holds anything else than what a plan has begun."""
    if target.exists() and not (target / 'plan.json').is_file() and {*os.listdir(target)} - {_LOCK}:
        raise ValueError(f'{target} is not empty; choose a new folder')


def _prepare(plan: Plan, target: Path, workers: int | None) -> dict:
    parts = target / 'parts'
    _agree(target / 'plan.json', asdict(plan), f'{target} was begun with another plan')
    manifest = target / 'manifest.json'
    if manifest.is_file():
        return json.loads(manifest.read_text())
    parts.mkdir(exist_ok=True)
    source = open_source(plan.source, plan.inside, tuple(plan.extensions), parts)
    if not source.images:
        raise no_image(os.path.join(plan.source, plan.inside), plan.extensions, source.left_out)
    source.left_out.warn(plan.source)
    names = hashlib.sha256(
        '\0'.join(name for name, *_ in source.images).encode(errors='surrogateescape')
    ).hexdigest()
    _agree(
        parts / 'names.json',
        names,
        f'{plan.source} holds other images than when {target} was begun',
    )

    jpegs = jpeg_names([name for name, *_ in source.images])
    members = [Member(*image, jpeg) for image, jpeg in zip(source.images, jpegs, strict=True)]
    groups = [
        members[start : start + plan.per_shard] for start in range(0, len(members), plan.per_shard)
    ]
    reports = [parts / f'{number:05d}.json' for number in range(len(groups))]
    _write_shards(
        plan,
        groups,
        [target / f'shard-{report.stem}.tar' for report in reports],
        reports,
        source,
        workers,
    )
    shards = [json.loads(report.read_text()) for report in reports]
    skipped = [fault for shard in shards for fault in shard.pop('skipped')]
    totals = {key: sum(shard[key] for shard in shards) for key in ('images', 'bytes')}
    result = dict(
        plan=asdict(plan),
        **totals,
        shards=shards,
        skipped=skipped,
        left_out=source.left_out.notes(),
    )
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


def jpeg_names(names: Sequence[str]) -> list[str]:
    """Names that images have as JPEGs.

    ``a.png`` becomes ``a.jpg``, or ``a.png.jpg`` where another image is, or becomes, ``a.jpg``.
    """
    stems = [name if _is_jpeg(name) else f'{os.path.splitext(name)[0]}.jpg' for name in names]
    times, taken = Counter(stems), set(names)
    result = []
    for name, jpeg in zip(names, stems, strict=True):
        if not _is_jpeg(name):
            jpeg = jpeg if times[jpeg] == 1 else f'{name}.jpg'
            while jpeg in taken:
                jpeg = f'{jpeg}.jpg'
            taken.add(jpeg)
        result.append(jpeg)
    return result


def _is_jpeg(name: str) -> bool:
    return name.lower().endswith(('.jpg', '.jpeg'))


def _write_shards(plan, groups, targets, reports, source, workers) -> None:
    """Writes the shards that have no report yet."""
    missing = [number for number, report in enumerate(reports) if not report.is_file()]
    if not missing:
        return
    # The first one keeps the class folders without images.
    empty = sorted({*source.folders} - {*class_folders((name for name, *_ in source.images), ())})
    done = multiprocessing.Value(
        'q', sum(map(len, groups)) - sum(len(groups[number]) for number in missing)
    )
    columns = (
        TextColumn('{task.description}'),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn('left'),
    )
    with process_pool(workers, _share, done) as pool:
        tasks = {
            pool.submit(
                _write_shard,
                plan,
                groups[number],
                () if number else empty,
                targets[number],
                reports[number],
                source.read,
            )
            for number in missing
        }
        with Progress(*columns, TimeRemainingColumn()) as progress:
            bar = progress.add_task(
                'preparing images', total=sum(map(len, groups)), completed=done.value
            )
            while tasks:
                finished, tasks = wait(tasks, timeout=0.5, return_when=FIRST_EXCEPTION)
                progress.update(bar, completed=done.value)
                for task in finished:
                    task.result()


def _share(done) -> None:
    global _done
    _done = done


def _write_shard(
    plan: Plan,
    members: Sequence[Member],
    folders: Sequence[str],
    target: Path,
    report: Path,
    read: Callable[[object], bytes],
) -> None:
    """Writes a tar file, and then a report of it, which says that it is whole.

    Class folders of which it holds no image become members, lest classes get other numbers:
    ``folders``, and those whose images all turn out to be broken.
    """
    skipped, written = [], set()
    with staged_file(target) as part:
        with tarfile.open(part, 'w') as tar:
            for member in members:
                try:
                    name, data = _fit(member, read(member.place), plan)
                # Decoders raise what they like at broken files.
                except Exception as error:
                    if is_out_of_descriptors(error):
                        raise out_of_descriptors(printable(member.name)) from error
                    skipped.append(
                        dict(name=member.name, reason=str(error) or type(error).__name__)
                    )
                else:
                    written.add(name)
                    _add(tar, name, data)
                    if member.label is not None:
                        _add(tar, f'{member_key(name)}.cls', member.label.encode())
                with _done.get_lock():
                    _done.value += 1
            classes = {*folders, *class_folders((member.name for member in members), ())}
            for folder in sorted(classes - {'', *class_folders(written, ())}):
                _add_folder(tar, folder)
        content = part.read_bytes()
    summary = dict(file=target.name, images=len(members) - len(skipped), bytes=len(content))
    write_atomically(
        report,
        _json({**summary, 'sha256': hashlib.sha256(content).hexdigest(), 'skipped': skipped}),
    )


def _add(tar: tarfile.TarFile, name: str, content: bytes) -> None:
    member = tarfile.TarInfo(name)
    member.size = len(content)
    tar.addfile(member, io.BytesIO(content))


def _add_folder(tar: tarfile.TarFile, name: str) -> None:
    member = tarfile.TarInfo(name)
    member.type, member.mode = tarfile.DIRTYPE, 0o755
    tar.addfile(member)


def _fit(member: Member, data: bytes, plan: Plan) -> tuple[str, bytes]:
    """An image's name and content as they go into a shard."""
    try:
        image = EncodedImage(data, 'rgb')
        pixels = image.pixels()
    except ValueError:
        if plan.size is not None:
            raise
        # Of bands that are no colors, perhaps in pages that page= chooses from; damaged files raise
        # once more.
        EncodedImage(data, color_type='unchanged', page=0).pixels()
        return member.name, data
    shorter = min(image.size)
    if plan.size is None or shorter <= plan.size:
        return member.name, data
    size = [max(plan.size, round(side * plan.size / shorter)) for side in image.size]
    return member.jpeg, simplejpeg.encode_jpeg(resize(pixels, size), plan.quality, 'RGB', '420')
