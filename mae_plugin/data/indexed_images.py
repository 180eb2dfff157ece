"""IndexedImages, a dataset of the images of a folder tree or of tar files, labeled or not."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from mmengine.logging import print_log
from mmpretrain.datasets import BaseDataset

from ..utils.printable import printable
from .sources.annotations import find_annotated, read_annotations
from .sources.classes import renumber
from .sources.entries import IMAGE_EXTENSIONS, no_image
from .sources.folder import index_folder
from .sources.image_list import ImageList
from .sources.shards import find_shards, index_shards


class IndexedImages(BaseDataset):
    """Images of a folder tree, or of tar files in one folder, found through an index on disk.

    The index is made once and mapped from disk: a source of millions of images opens at once and
    takes no memory of its own in any process. Labels come from ``ann_file``, else from the ``.cls``
    or ``.json`` members of tar files, else from the first-level folders in alphabetical order,
    including those without images. A label is a class name or a whole number from 0. The rules for
    which entries are images are in :mod:`.entries`.

    Args:
        data_root: folder of the dataset.
        data_prefix: folder of the images below ``data_root``, or a tar file; or mmpretrain's
            ``dict(img_path=…)``.
        ann_file: a text file with lines ``path label``, or a JSON file ``{path: label}``, of the
            images to use and their labels. Paths are relative to ``data_prefix`` or absolute.
            Without labels, lines with only a path suffice. An image listed twice is used twice.
        with_label: whether images have a label, ``gt_label``.
        extensions: file name extensions of images.
        index_dir: folder of the indices; ``mae_plugin`` in ``$XDG_CACHE_HOME`` or ``~/.cache`` if
            None.
        lazy_init: defers the search for images until they are needed.
        serialize_data: accepted for compatibility with mmengine and ignored: the index takes no
            memory that serialization could save.
        **kwargs: further arguments of mmpretrain's ``BaseDataset``, such as ``pipeline``,
            ``indices`` (the first n images, the last n if negative, or a list of positions) and
            ``classes`` (class names in the order of their numbers, or a file with one per line).

    Attributes:
        has_given_classes: whether the class names come from an argument, and not from the images.

    Raises:
        FileNotFoundError: if the folder does not exist, holds no image, or lacks an image that
            ``ann_file`` lists.
        ValueError: if labels are needed and missing, or are not among ``classes``.
    """

    def __init__(
        self,
        data_root: str = '',
        data_prefix: str | dict = '',
        ann_file: str = '',
        with_label: bool = False,
        extensions: Sequence[str] = IMAGE_EXTENSIONS,
        index_dir: str | None = None,
        lazy_init: bool = False,
        serialize_data: bool = False,
        **kwargs,
    ) -> None:
        self.with_label = with_label
        self.extensions = tuple(sorted(extension.lower() for extension in extensions))
        self.index_dir = index_dir
        kwargs |= dict(ann_file=ann_file, data_root=data_root, data_prefix=data_prefix)
        super().__init__(**kwargs, lazy_init=True, serialize_data=False)
        self.has_given_classes = self.CLASSES is not None
        if not lazy_init:
            self.full_init()

    data_list: ImageList | list[dict]
    """The images; a list of dicts if a subclass overrides ``load_data_list``."""

    def load_data_list(self) -> ImageList:
        """Opens the index, which is made first if necessary, and numbers the labels."""
        if not self.img_prefix:
            raise ValueError(
                'data_root and data_prefix are empty; name the folder of the images in one of them'
            )
        source = os.path.normpath(self.img_prefix)
        shards, left_out = find_shards(source, self.extensions)
        if shards:
            index = index_shards(shards, self.extensions, self.index_dir)
        else:
            index = index_folder(source, self.extensions, self.index_dir)
        images = ImageList(source, index, shards)
        for reason, number, example in index.notes['left_out']:
            left_out.add(reason, example, number)
        if len(images) == 0:
            raise no_image(source, self.extensions, left_out)
        left_out.warn(source)
        labels = index.notes.get('labels') or []
        label_errors = index.notes.get('label_errors') or []
        if self.ann_file:
            self._annotate(images, read_annotations(self.ann_file, self.with_label))
        elif self.with_label and (labels or label_errors):
            self._label_by_members(images, labels, label_errors)
        elif self.with_label:
            self._label_by_folders(images, index.notes['classes'], index.notes['empty_classes'])
        return images

    def number_like(self, classes: Sequence[str], origin: str) -> None:
        """Numbers the labels by the classes of another dataset, such as the training dataset.

        Classes are matched as in :func:`renumber`.

        Args:
            classes: class names in the order of their numbers.
            origin: name of the other dataset, for the error.

        Raises:
            ValueError: if there are images of a class that is not among ``classes``.
        """
        self.full_init()
        own = self.CLASSES
        if own is None:
            # The labels are numbers already, without names to match.
            numbers = dict(enumerate(range(len(classes))))
        else:
            numbers = renumber(own, classes)
        if own is None or len(numbers) < len(own):
            unknown = sorted(set(np.unique(self.get_gt_labels()).tolist()) - set(numbers))
            if unknown:
                names = [number if own is None else own[number] for number in unknown]
                examples = ', '.join(classes[:5]) + (', …' if len(classes) > 5 else '')
                raise ValueError(
                    f'{self.img_prefix} has images of the classes {names[:5]}, which are not '
                    f'among the {len(classes)} of {origin} ({examples}); remove or rename them, or '
                    'give both datasets the same classes=[…]'
                )
        if isinstance(self.data_list, ImageList):
            self.data_list = self.data_list.relabeled(numbers)
        else:
            self.data_list = [
                info | dict(gt_label=numbers[info['gt_label']]) for info in self.data_list
            ]
        self._metainfo['classes'] = tuple(classes)

    def get_cat_ids(self, idx: int) -> list[int]:
        """Returns the label of an image as a list of one, without reading the image."""
        self.full_init()
        if isinstance(self.data_list, ImageList):
            return [self.data_list.label(idx)]
        return super().get_cat_ids(idx)

    def get_gt_labels(self) -> np.ndarray:
        """Returns the labels of all images, (N,)."""
        self.full_init()
        if isinstance(self.data_list, ImageList):
            return self.data_list.all_labels()
        return super().get_gt_labels()

    def _get_unserialized_subset(self, indices: int | Sequence[int]) -> Sequence[dict]:
        """Returns the first n images, the last n if negative, or those at a list of positions."""
        if isinstance(indices, (int, np.integer)):
            return self.data_list[:indices] if indices >= 0 else self.data_list[indices:]
        if isinstance(self.data_list, ImageList):
            return self.data_list.select(indices)
        return super()._get_unserialized_subset(indices)

    def digest_of_names(self) -> str | None:
        """Returns a digest of all image paths, in order, by which a resumed run detects changes."""
        self.full_init()
        return self.data_list.digest() if isinstance(self.data_list, ImageList) else None

    def _copy_without_annotation(self, memo: dict | None = None) -> IndexedImages:
        """Copies the dataset without its images."""
        # mmengine's default memo is one dict for all copies. It holds ids of deleted objects, so a
        # later object with such an id would be replaced by a copy of another one.
        return super()._copy_without_annotation({} if memo is None else memo)

    def _annotate(self, images: ImageList, pairs: list[tuple[str, Any]]) -> None:
        """Selects the images of an ``ann_file`` and sets their labels."""
        images.places = np.array(find_annotated(images, [name for name, _ in pairs], self.ann_file))
        if not self.with_label:
            return
        labels: dict[int, str] = {}
        for place, (name, label) in zip(images.places.tolist(), pairs, strict=True):
            if labels.setdefault(place, label) != label:
                raise ValueError(
                    f'{self.ann_file} gives {printable(name)} two labels, {labels[place]} and '
                    f'{label}; remove one line'
                )
        numbers = self._number(images, set(labels.values()))
        images.labels = np.full(len(images.names), -1)
        images.labels[list(labels)] = [numbers[label] for label in labels.values()]

    def _label_by_members(self, images: ImageList, labels: list[str], errors: list[str]) -> None:
        """Sets labels from the ``.cls`` and ``.json`` members of tar files."""
        by_label = images.arrays['label']  # (N,), -1 without a label
        if unlabeled := np.flatnonzero(by_label < 0).tolist():
            reason = f' ({errors[0]})' if errors else ''
            raise ValueError(
                f'{len(unlabeled)} images in {images.source} have no label, such as '
                f'{printable(images.names[unlabeled[0]])}{reason}'
            )
        numbers = self._number(images, labels)
        images.labels = np.array([numbers[label] for label in labels])[by_label]

    def _label_by_folders(self, images: ImageList, folders: list[str], empty: list[str]) -> None:
        """Sets labels from the first-level folders, of which ``empty`` hold no image."""
        if '' in folders:
            raise ValueError(
                f'some images in {images.source} lie in no class folder; put each into a folder '
                'of its class, or name the labels in an ann_file'
            )
        if self.CLASSES is None and empty:
            print_log(
                f'{printable(images.source)} has {len(empty)} class folders without images, such '
                f'as {printable(empty[0])}; they count as classes, so that all others keep their '
                'numbers',
                logger='current',
                level=logging.WARNING,
            )
        elif self.CLASSES is not None and len(self.CLASSES) != len(folders):
            # If all classes are named, other folders are ignored as long as they are empty.
            folders = [
                folder for folder in folders if folder not in empty or folder in self.CLASSES
            ]
        # Class names that differ from all folder names are assigned in order, as in mmpretrain.
        if set(folders).isdisjoint(self.CLASSES or folders) and len(self.CLASSES) == len(folders):
            images.numbers = {folder: number for number, folder in enumerate(folders)}
        else:
            images.numbers = self._number(images, folders, named=True)

    def _number(
        self, images: ImageList, labels: Iterable[str], named: bool = False
    ) -> dict[str, int]:
        """Numbers labels by ``classes``, as the numbers they are, or in alphabetical order.

        Args:
            images: images with the labels.
            labels: labels as text.
            named: whether all labels are names, even those of digits only.
        """
        labels = sorted(labels)
        digits = [label for label in labels if label.isdecimal()]
        if self.CLASSES is None and not named and digits:
            if names := [label for label in labels if not label.isdecimal()]:
                raise ValueError(
                    f'{self.ann_file or images.source} has labels that are numbers, such as '
                    f'{digits[0]}, and labels that are names, such as {names[0]}; use one of both, '
                    'or name all classes with classes=[…]'
                )
            return {label: int(label) for label in labels}
        classes = self._metainfo.setdefault('classes', tuple(labels))
        known = {} if named else {str(number): number for number in range(len(classes))}
        known |= {name: number for number, name in enumerate(classes)}
        if unknown := [label for label in labels if label not in known]:
            raise ValueError(
                f'{images.source} has labels that are not among its {len(classes)} classes: '
                f'{unknown[:5]}'
            )
        return known
