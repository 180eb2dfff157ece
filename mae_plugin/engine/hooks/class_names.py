"""One numbering of the classes for all datasets of a run."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence

from mmengine.dataset import ClassBalancedDataset, RepeatDataset
from mmengine.logging import print_log
from mmpretrain.datasets import KFoldDataset
from torch.utils.data import Dataset

from ...data import IndexedImages
from ...data.sources.classes import renumber
from ...utils._compat.mmengine import set_wrapper_classes

# Of the wrappers only some are torch's datasets.
_DATASETS = Dataset, RepeatDataset, ClassBalancedDataset, KFoldDataset


def class_names(dataset: Dataset) -> tuple[str, ...] | None:
    """The class names of a dataset in the order of their numbers, None if it has none."""
    for part in layers(dataset):
        names = (getattr(part, 'metainfo', None) or {}).get('classes')
        if names and all(isinstance(name, str) for name in names):
            return tuple(names)
    return None


def share_classes(dataset: Dataset, classes: Sequence[str], setting: str, origin: str) -> None:
    """Makes a dataset number its classes as training does, by their names.

    An :class:`IndexedImages`, alone or in a wrapper, takes the numbers over unless its own
    ``classes`` are an argument. Every other dataset is compared.

    Args:
        dataset: dataset of another split.
        classes: class names in the order of their numbers.
        setting: what the dataset is called in the config.
        origin: whose classes these are: ``'training'``, or ``'the checkpoint'``.

    Raises:
        ValueError: if the dataset has a class that is not among ``classes``, or numbers one
            otherwise.
    """
    classes = tuple(classes)
    adopted = False
    # Every part of a wrapper for itself: one may number its classes as training does, and the next
    # one not.
    for part in [part for part in indexed_images(dataset) if part.with_label] or [dataset]:
        own = class_names(part)
        if own == classes:
            continue
        if isinstance(part, IndexedImages) and not part.has_given_classes:
            part.number_like(classes, origin)
            adopted = True
        elif own is not None:
            _compare(own, classes, setting, origin)
        if own is not None:
            _say_what_differs(own, classes, setting, origin)
    for part in layers(dataset) if adopted else ():
        # Wrappers keep a copy of what the dataset within said when they were built.
        set_wrapper_classes(part, classes)


def _compare(own: Sequence[str], classes: Sequence[str], setting: str, origin: str) -> None:
    """Raises ValueError if a class has another number, or is unknown; other names for all of them
    may be right.
    """
    if set(own).isdisjoint(classes):
        return
    numbers = renumber(own, classes)
    remedy = f'give {setting}.dataset the classes=[…] of {origin}'
    if unknown := [name for number, name in enumerate(own) if number not in numbers]:
        raise ValueError(
            f'{setting} has the classes {unknown[:5]}, which {origin} does not have; {remedy}'
        )
    for number, new in numbers.items():
        if number != new:
            raise ValueError(
                f'{setting} numbers the class {own[number]!r} {number}, {origin} {new}; {remedy}'
            )


def _say_what_differs(
    own: Sequence[str], classes: Sequence[str], setting: str, origin: str
) -> None:
    if set(own).isdisjoint(classes):
        text = (
            f'No class name of {setting} is among those of {origin} ({own[0]}, …; {classes[0]}, …).'
        )
        if len(own) == len(classes):
            text += f' As there are as many, {len(own)}, they are taken to be in the same order.'
    elif absent := [name for name in classes if name not in set(own)]:
        some = f'{", ".join(absent[:5])}{", …" if len(absent) > 5 else ""}'
        text = f'{setting} has no image of {len(absent)} of the {len(classes)} classes of {origin}: {some}.'
    else:
        return
    print_log(text, logger='current', level=logging.WARNING)


def indexed_images(dataset: Dataset) -> list[IndexedImages]:
    """Every :class:`IndexedImages` within a dataset."""
    return [part for part in layers(dataset) if isinstance(part, IndexedImages)]


def layers(dataset: Dataset) -> Iterator[Dataset]:
    """A dataset and, where it is a wrapper, the datasets within."""
    yield dataset
    for part in (*getattr(dataset, 'datasets', ()), getattr(dataset, 'dataset', None)):
        if isinstance(part, _DATASETS):
            yield from layers(part)
