"""Files that list images and their labels (``ann_file``)."""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Sequence

from ...utils.printable import printable
from .image_list import ImageList
from .labels import checked_label


def read_annotations(path: str, with_label: bool) -> list[tuple[str, str | None]]:
    """Reads a file that lists images, in order, with the label of each, or None without labels.

    Raises:
        FileNotFoundError: if the file does not exist.
        ValueError: if it lists no image, or one without a valid label.
    """
    if not os.path.isfile(path):
        raise FileNotFoundError(f'the ann_file {path} does not exist')
    with open(path, 'rb') as file:
        content = file.read()
    if path.endswith('.json'):
        pairs: Sequence[tuple[str, object]] = _pairs_of_json(path, content)
    else:
        pairs = _pairs_of_lines(path, content, with_label)
    if not pairs:
        raise ValueError(f'the ann_file {path} lists no image')
    if not with_label:
        return [(name, None) for name, _ in pairs]
    return [(name, checked_label(label, f'the image {name!r} in {path}')) for name, label in pairs]


def _pairs_of_json(path: str, content: bytes) -> Sequence[tuple[str, object]]:
    """Returns paths and labels in a JSON object, duplicates included."""
    form = f'{path} is no JSON file of the form {{"path": label}}: '
    try:
        # Pairs, because a dict would drop repeated entries of an image.
        pairs = json.loads(content, object_pairs_hook=_Pairs)
    except (ValueError, RecursionError) as error:
        raise ValueError(f'{form}{error}') from error
    if not isinstance(pairs, _Pairs):
        raise ValueError(f'{form}it holds a {type(pairs).__name__}')
    return pairs


class _Pairs(list):
    """Names and values of a JSON object; the type distinguishes an object from a JSON list."""


def _pairs_of_lines(path: str, content: bytes, with_label: bool) -> list[tuple[str, str | None]]:
    """Returns paths and labels in lines of text; labels are None without ``with_label``."""
    # File names need not be UTF-8.
    lines = content.decode('utf-8-sig', errors='surrogateescape').split('\n')
    lines = [line.strip() for line in lines if line.strip()]
    if not with_label:
        return [(line, None) for line in lines]
    pairs = [line.rsplit(maxsplit=1) for line in lines]
    if unlabeled := [pair[0] for pair in pairs if len(pair) == 1]:
        raise ValueError(
            f'the line {unlabeled[0]!r} of {path} has no label; lines are of the form "path label"'
        )
    return [(name, label) for name, label in pairs]


def find_annotated(images: ImageList, names: list[str], path: str) -> list[int]:
    """Finds images of a list by their paths.

    Args:
        images: images of a source.
        names: paths relative to the source, absolute, or within a tar file.
        path: file that lists the names, for the errors.

    Returns:
        The position of each image in the index.
    Raises:
        FileNotFoundError: if one of them is not in the source.
        ValueError: if one of them is in several tar files.
    """
    places = _places_by_path(images)
    names = [_below(images.source, name) for name in names]
    if absent := [name for name in names if name not in places]:
        raise FileNotFoundError(
            f'{len(absent)} of the {len(names)} images in {path} are not in {images.source}, such '
            f'as {printable(absent[0])}; write paths relative to it'
        )
    if several := [printable(name) for name in names if places[name] is None]:
        raise ValueError(
            f'{several[0]} in {path} is in several tar files of {images.source}; write '
            f'TAR_FILE/{several[0]}'
        )
    return [place for name in names if (place := places[name]) is not None]


def _places_by_path(images: ImageList) -> dict[str, int | None]:
    """Returns positions in the index by path; None for a path that occurs several times."""
    names = [images.names[place] for place in range(len(images.names))]
    if not images.shards:
        return {name: place for place, name in enumerate(names)}
    times = Counter(names)
    places: dict[str, int | None] = {}
    for place, shard in enumerate(images.arrays['shard'].tolist()):
        tar = os.path.basename(images.shards[shard])
        places[f'{tar}/{names[place]}'] = place
    # The name alone suffices if it occurs in a single tar file.
    for place, name in enumerate(names):
        places[name] = place if times[name] == 1 else None
    return places


def _below(source: str, path: str) -> str:
    """Returns a path relative to a source, if it is an absolute path below the source."""
    path = os.path.normpath(path)
    if not os.path.isabs(path):
        return path
    for root in (os.path.abspath(source), os.path.realpath(source)):
        if path.startswith(f'{root}/'):
            return path[len(root) + 1 :]
    return path
