"""Numbers the classes of all datasets of a run in the same way."""

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

# Not all wrappers are subclasses of torch's Dataset.
_DATASETS = Dataset, RepeatDataset, ClassBalancedDataset, KFoldDataset
# Number of names that a message lists.
_LISTED = 5


def class_names(dataset: Dataset) -> tuple[str, ...] | None:
    """Returns the class names of a dataset in the order of their labels, or None without names."""
    for part in layers(dataset):
        names = (getattr(part, 'metainfo', None) or {}).get('classes')
        if names and all(isinstance(name, str) for name in names):
            return tuple(names)
    return None


def share_classes(dataset: Dataset, classes: Sequence[str], setting: str, origin: str) -> None:
    """Makes a dataset label its classes as training does, by their names.

    An :class:`IndexedImages`, alone or in a wrapper, adopts the labels, unless ``classes`` is one
    of its arguments. Every other dataset is compared.

    Args:
        dataset: dataset of another split.
        classes: class names in the order of their labels.
        setting: name of the dataset in the config.
        origin: source of ``classes``: ``'training'`` or ``'the checkpoint'``.

    Raises:
        ValueError: if the dataset has a class that is not in ``classes``, or another label for one.
    """
    classes = tuple(classes)
    adopted = False
    # Each part of a wrapper is checked, as they may differ in their labels.
    parts = [part for part in indexed_images(dataset) if part.with_label]
    for part in parts or [dataset]:
        own = class_names(part)
        if own == classes:
            continue
        if isinstance(part, IndexedImages) and not part.has_given_classes:
            part.number_like(classes, origin)
            adopted = True
        elif own is not None:
            _compare(own, classes, setting, origin)
        if own is not None:
            _log_difference(own, classes, setting, origin)
    if adopted:
        # Wrappers hold a copy of the class names from when they were built.
        for part in layers(dataset):
            set_wrapper_classes(part, classes)


def _compare(own: Sequence[str], classes: Sequence[str], setting: str, origin: str) -> None:
    """Raises ValueError if a class has another label or is unknown.

    If no name is the same, the datasets may just name their classes differently.
    """
    if set(own).isdisjoint(classes):
        return
    labels = renumber(own, classes)
    remedy = f'set {setting}.dataset.classes=[…] to those of {origin}'
    if unknown := [name for label, name in enumerate(own) if label not in labels]:
        raise ValueError(
            f'{setting} has the classes {unknown[:_LISTED]}, which {origin} does not have; {remedy}'
        )
    for label, new in labels.items():
        if label != new:
            raise ValueError(
                f'{setting} labels the class {own[label]!r} {label}, {origin} {new}; {remedy}'
            )


def _log_difference(own: Sequence[str], classes: Sequence[str], setting: str, origin: str) -> None:
    """Logs a warning if a dataset lacks some classes, or has only names of its own."""
    if set(own).isdisjoint(classes):
        text = (
            f'No class name of {setting} is among those of {origin} ({own[0]}, …; {classes[0]}, …).'
        )
        if len(own) == len(classes):
            text += f' As both have {len(own)} classes, these are assumed to be in the same order.'
    elif absent := [name for name in classes if name not in set(own)]:
        some = f'{", ".join(absent[:_LISTED])}{", …" if len(absent) > _LISTED else ""}'
        text = (
            f'{setting} has no image of {len(absent)} of the {len(classes)} classes of {origin}: '
            f'{some}.'
        )
    else:
        return
    print_log(text, logger='current', level=logging.WARNING)


def indexed_images(dataset: Dataset) -> list[IndexedImages]:
    """Returns all :class:`IndexedImages` in a dataset and its wrapped datasets."""
    return [part for part in layers(dataset) if isinstance(part, IndexedImages)]


def layers(dataset: Dataset) -> Iterator[Dataset]:
    """Yields a dataset and, if it is a wrapper, the datasets in it."""
    yield dataset
    for part in (*getattr(dataset, 'datasets', ()), getattr(dataset, 'dataset', None)):
        if isinstance(part, _DATASETS):
            yield from layers(part)
