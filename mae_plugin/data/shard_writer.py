"""Writes images into tar files, in parallel worker processes."""

from __future__ import annotations

import hashlib
import io
import json
import multiprocessing
import tarfile
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import FIRST_EXCEPTION, wait
from multiprocessing.sharedctypes import Synchronized
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import simplejpeg
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from ..utils.atomic_files import staged_file, write_atomically
from ..utils.pools import process_pool
from ..utils.printable import printable
from .decoding.decode import EncodedImage
from .resize import resize
from .sources.entries import class_folders
from .sources.labels import member_key
from .sources.open_files import is_out_of_descriptors, out_of_descriptors

if TYPE_CHECKING:
    from .prepare import Plan

# Number of images that all workers have processed; each worker receives it from the main process.
_done: Synchronized


class Member(NamedTuple):
    """An image of the source.

    Attributes:
        name: name within the source.
        place: location that the source's ``read`` function takes.
        label: label, stored beside the image; None if there is none.
        jpeg: name of the image if it is reduced, and hence written as JPEG.
    """

    name: str
    place: object
    label: str | None
    jpeg: str


class Shard(NamedTuple):
    """A tar file to write.

    Attributes:
        members: images of the tar file.
        folders: class folders without images, which become members.
        target: path of the tar file.
        report: path of its report, which is written once the tar file is complete.
    """

    members: Sequence[Member]
    folders: Sequence[str]
    target: Path
    report: Path


def write_shards(
    plan: Plan, shards: Sequence[Shard], read: Callable[[object], bytes], workers: int | None
) -> None:
    """Writes the shards that have no report yet.

    Args:
        plan: how images are reduced.
        shards: all shards.
        read: returns the content of the image at a place.
        workers: number of processes; one for each core if None.

    Raises:
        RuntimeError: if the system killed a worker.
    """
    missing = [shard for shard in shards if not shard.report.is_file()]
    if not missing:
        return
    total = sum(len(shard.members) for shard in shards)
    done = multiprocessing.Value('q', total - sum(len(shard.members) for shard in missing))
    columns = (
        TextColumn('{task.description}'),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn('left'),
        TimeRemainingColumn(),
    )
    with process_pool(workers, _share, done) as pool:
        tasks = {pool.submit(_write_shard, plan, shard, read) for shard in missing}
        with Progress(*columns) as progress:
            bar = progress.add_task('preparing images', total=total, completed=done.value)
            while tasks:
                finished, tasks = wait(tasks, timeout=0.5, return_when=FIRST_EXCEPTION)
                progress.update(bar, completed=done.value)
                for task in finished:
                    task.result()


def as_json(content: object) -> bytes:
    """Returns content as indented JSON, the form of all notes in the target folder."""
    return (json.dumps(content, indent=1) + '\n').encode()


def _share(done: Synchronized) -> None:
    """Sets the counter of processed images in a worker."""
    global _done
    _done = done


def _write_shard(plan: Plan, shard: Shard, read: Callable[[object], bytes]) -> None:
    """Writes a tar file, then its report, which marks the tar file as complete."""
    with staged_file(shard.target) as part:
        with tarfile.open(part, 'w') as tar:
            skipped, written = _add_images(tar, plan, shard.members, read)
            _add_class_folders(tar, shard, written)
        content = part.read_bytes()
    report = dict(
        file=shard.target.name,
        images=len(shard.members) - len(skipped),
        bytes=len(content),
        sha256=hashlib.sha256(content).hexdigest(),
        skipped=skipped,
    )
    write_atomically(shard.report, as_json(report))


def _add_images(
    tar: tarfile.TarFile,
    plan: Plan,
    members: Iterable[Member],
    read: Callable[[object], bytes],
) -> tuple[list[dict], set[str]]:
    """Adds images and labels; returns the skipped images with reasons, and the written names."""
    skipped, written = [], set()
    for member in members:
        try:
            name, data = _reduce(member, read(member.place), plan)
        # Decoders raise exceptions of many types for damaged files.
        except Exception as error:
            if is_out_of_descriptors(error):
                raise out_of_descriptors(printable(member.name)) from error
            skipped.append(dict(name=member.name, reason=str(error) or type(error).__name__))
        else:
            written.add(name)
            _add(tar, name, data)
            if member.label is not None:
                _add(tar, f'{member_key(name)}.cls', member.label.encode())
        with _done.get_lock():
            _done.value += 1
    return skipped, written


def _add_class_folders(tar: tarfile.TarFile, shard: Shard, written: set[str]) -> None:
    """Adds the class folders of which the tar file holds no image.

    They are ``shard.folders``, and folders whose images are all damaged. Without them, the
    following classes would get other numbers.
    """
    classes = {*shard.folders, *class_folders((member.name for member in shard.members), ())}
    for folder in sorted(classes - {'', *class_folders(written, ())}):
        _add_folder(tar, folder)


def _add(tar: tarfile.TarFile, name: str, content: bytes) -> None:
    """Adds a file. Its date stays 0, so that equal images make equal tar files."""
    member = tarfile.TarInfo(name)
    member.size = len(content)
    tar.addfile(member, io.BytesIO(content))


def _add_folder(tar: tarfile.TarFile, name: str) -> None:
    """Adds an empty folder."""
    member = tarfile.TarInfo(name)
    member.type, member.mode = tarfile.DIRTYPE, 0o755
    tar.addfile(member)


def _reduce(member: Member, data: bytes, plan: Plan) -> tuple[str, bytes]:
    """Returns name and content of an image for a shard, reduced to ``plan.size`` if it is larger.

    Raises:
        ValueError: if the image cannot be decoded.
    """
    try:
        image = EncodedImage(data, 'rgb')
        pixels = image.pixels()  # (H, W, 3)
    except ValueError:
        if plan.size is not None:
            raise
        # Images whose bands are not colors, perhaps on several pages, are kept as they are. Damaged
        # files raise here again.
        EncodedImage(data, color_type='unchanged', page=0).pixels()
        return member.name, data
    shorter = min(image.size)
    if plan.size is None or shorter <= plan.size:
        return member.name, data
    height, width = (max(plan.size, round(side * plan.size / shorter)) for side in image.size)
    return member.jpeg, simplejpeg.encode_jpeg(
        resize(pixels, (height, width)), plan.quality, 'RGB', '420'
    )
