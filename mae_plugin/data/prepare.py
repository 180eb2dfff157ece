"""Prepares a folder or an archive as tar files that training reads at full speed."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from mmengine.logging import print_log

from ..utils.atomic_files import check_folder, write_atomically
from ..utils.locks import FileLock, LockedError
from .shard_writer import Member, Shard, as_json, write_shards
from .sources.contents import Contents, open_source
from .sources.entries import IMAGE_EXTENSIONS, class_folders, no_image

_LOCK = '.prepare.lock'


@dataclass(frozen=True)
class Plan:
    """Settings of the tar files; an interrupted preparation continues only with equal settings.

    Attributes:
        source: folder, zip or tar file.
        inside: folder within the source to take images from; image names are relative to it.
        size: length in pixels to which the shorter side of larger images is reduced; None keeps all
            images as they are.
        quality: JPEG quality of reduced images, 1 to 100.
        per_shard: number of images in a tar file.
        extensions: file name extensions of images.

    Raises:
        FileNotFoundError: if the source does not exist.
        ValueError: if a number is out of range.
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

    Image names keep their folders, so class folders stay labels, including those without images.
    The ``.cls`` and ``.json`` members of a tar file are kept as ``.cls`` members. Every image is
    decoded once; damaged images are left out and listed. After a kill, the same call continues: a
    shard is either complete or absent. Equal plans write equal shards, byte by byte.

    Args:
        plan: settings of the tar files.
        target: a new folder, or one in which the same plan was begun.
        workers: number of processes; one for each core if None.

    Returns:
        The manifest, a dict with ``plan``; ``images`` and ``bytes``, the totals; ``shards``, each
        with ``file``, ``images``, ``bytes`` and ``sha256``; ``skipped``, the name and reason of
        every damaged image; and ``left_out``, reasons, numbers and examples of all other entries
        that were left out (see :mod:`.entries`).

    Raises:
        FileNotFoundError: if there is no image in the source.
        ValueError: if the target holds other files or cannot be written, or the source has changed.
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
        # The file system has no locks, or it is full, in which case writing the first shard fails.
        print_log(
            f'{target} cannot be locked ({error}), so a second process is not kept from writing to '
            'it.',
            'current',
        )
    try:
        # Another process may have begun before the lock was acquired.
        _check_new(target)
        return _prepare(plan, target, workers)
    finally:
        lock.release(remove=True)


def _check_new(target: Path) -> None:
    """Raises ValueError if a folder holds files and no plan that was begun in it."""
    if not target.exists() or (target / 'plan.json').is_file():
        return
    if set(os.listdir(target)) - {_LOCK}:
        raise ValueError(f'{target} is not empty; choose a new folder')


def _prepare(plan: Plan, target: Path, workers: int | None) -> dict:
    """Writes the shards and the manifest; returns the manifest."""
    _check_same(target / 'plan.json', asdict(plan), f'{target} was begun with another plan')
    manifest = target / 'manifest.json'
    if manifest.is_file():
        return json.loads(manifest.read_text())
    parts = target / 'parts'
    parts.mkdir(exist_ok=True)
    source = open_source(plan.source, plan.inside, tuple(plan.extensions), parts)
    if not source.images:
        raise no_image(os.path.join(plan.source, plan.inside), plan.extensions, source.left_out)
    source.left_out.warn(plan.source)
    names = '\0'.join(name for name, *_ in source.images).encode(errors='surrogateescape')
    _check_same(
        parts / 'names.json',
        hashlib.sha256(names).hexdigest(),
        f'{plan.source} holds other images than when {target} was begun',
    )

    planned = _plan_shards(source, plan.per_shard, target, parts)
    write_shards(plan, planned, source.read, workers)
    shards = [json.loads(shard.report.read_text()) for shard in planned]
    skipped = []
    for shard in shards:
        skipped += shard.pop('skipped')
    result = dict(
        plan=asdict(plan),
        images=sum(shard['images'] for shard in shards),
        bytes=sum(shard['bytes'] for shard in shards),
        shards=shards,
        skipped=skipped,
        left_out=source.left_out.notes(),
    )
    write_atomically(manifest, as_json(result))
    shutil.rmtree(parts)
    return result


def _plan_shards(source: Contents, per_shard: int, target: Path, parts: Path) -> list[Shard]:
    """Distributes the images of a source over shards, in order."""
    names = [name for name, *_ in source.images]
    pairs = zip(source.images, jpeg_names(names), strict=True)
    members = [Member(*image, jpeg) for image, jpeg in pairs]
    empty = sorted(set(source.folders) - set(class_folders(names, ())))
    shards: list[Shard] = []
    for start in range(0, len(members), per_shard):
        number = f'{len(shards):05d}'
        shard = Shard(
            members[start : start + per_shard],
            # The first shard keeps the class folders without images.
            folders=() if shards else empty,
            target=target / f'shard-{number}.tar',
            report=parts / f'{number}.json',
        )
        shards.append(shard)
    return shards


def _check_same(path: Path, content: object, difference: str) -> None:
    """Writes a note, or raises ValueError with ``difference`` if an existing note differs."""
    if not path.is_file():
        write_atomically(path, as_json(content))
    elif path.read_bytes() != as_json(content):
        raise ValueError(f'{difference} ({path}); choose a new folder')


def jpeg_names(names: Sequence[str]) -> list[str]:
    """Returns a unique name for each image once it is written as JPEG.

    ``a.png`` becomes ``a.jpg``, or ``a.png.jpg`` where another image is, or becomes, ``a.jpg``.
    """
    stems = [name if _is_jpeg(name) else f'{os.path.splitext(name)[0]}.jpg' for name in names]
    times, taken = Counter(stems), set(names)
    result = []
    for name, stem in zip(names, stems, strict=True):
        if _is_jpeg(name):
            result.append(name)
            continue
        jpeg = stem if times[stem] == 1 else f'{name}.jpg'
        while jpeg in taken:
            jpeg = f'{jpeg}.jpg'
        taken.add(jpeg)
        result.append(jpeg)
    return result


def _is_jpeg(name: str) -> bool:
    """Returns whether a file name has an extension of JPEG files."""
    return name.lower().endswith(('.jpg', '.jpeg'))
