"""The dataset: images of a folder tree or of tar files, labelled or not."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterable, Sequence

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
    """Images of a folder tree, or of tar files in one folder, found through an index that is made
    once.

    The index is mapped from disk: a source of millions of images opens at once and takes no memory
    of its own in any process. Labels come from ``ann_file``, else from the ``.cls`` or ``.json``
    members of tar files, else from the first-level folders in alphabetical order, those without
    images included. A label is a class name or a whole number from 0. Which entries are images is
    decided in :mod:`.entries`.

    Args:
        data_root: folder of the dataset.
        data_prefix: folder of the images below it, or a tar file; or mmpretrain's
            ``dict(img_path=…)``.
        ann_file: a text file with lines ``path label``, or a JSON file ``{path: label}``: the
            images to use, by path below ``data_prefix`` or absolute, and their labels. Without
            labels, lines of paths alone will do. An image that is listed twice is used twice.
        with_label: whether images come with a label, ``gt_label``.
        extensions: endings of image files.
        index_dir: where indices are kept; ``mae_plugin`` in ``$XDG_CACHE_HOME`` or ``~/.cache`` if
            left out.
        lazy_init: leave the images to be looked for until they are needed.
        serialize_data: accepted for mmengine's sake; the index takes no memory that would be worth
            it.
        **kwargs: further arguments of mmpretrain's ``BaseDataset``, such as ``pipeline``,
            ``indices`` (the first so many images, the last if negative, or those at these
            positions) and ``classes``: class names in the order of their numbers, or a file with
            one in a line.

    Attributes:
        has_given_classes: whether the class names come from an argument, and not from the images.

    Raises:
        FileNotFoundError: if there is no such folder, no image in it, or not one that ``ann_file``
            names.
        ValueError: if labels are asked for and there are none, or some that ``classes`` does not
            know.
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

    def load_data_list(self) -> ImageList:
        """Opens the index, making it first if need be, and numbers the labels."""
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
        labels, faults = index.notes.get('labels'), index.notes.get('label_faults')
        if self.ann_file:
            self._annotate(images, read_annotations(self.ann_file, self.with_label))
        elif self.with_label and (labels or faults):
            self._label_by_members(images, labels, faults)
        elif self.with_label:
            self._label_by_folders(images, index.notes['classes'], index.notes['empty_classes'])
        return images

    def number_like(self, classes: Sequence[str], origin: str) -> None:
        """Numbers the labels by the classes of another dataset, such as that of training (see
        :func:`renumber`).

        Args:
            classes: class names in the order of their numbers.
            origin: whose classes these are, for the error.

        Raises:
            ValueError: if there are images of a class that is not among ``classes``.
        """
        self.full_init()
        own = self.CLASSES
        numbers = dict(enumerate(range(len(classes)))) if own is None else renumber(own, classes)
        if own is None or len(numbers) < len(own):
            unknown = sorted(set(np.unique(self.get_gt_labels()).tolist()) - set(numbers))
            if unknown:
                names = [number if own is None else own[number] for number in unknown]
                raise ValueError(
                    f'{self.img_prefix} has images of the classes {names[:5]}, which are not '
                    f'among the {len(classes)} '
                    f'of {origin} ({", ".join(classes[:5])}{", …" if len(classes) > 5 else ""}); '
                    'remove or rename '
                    'them, or give both datasets the same classes=[…]'
                )
        if isinstance(self.data_list, ImageList):
            self.data_list = self.data_list.relabeled(numbers)
        else:
            self.data_list = [
                info | dict(gt_label=numbers[info['gt_label']]) for info in self.data_list
            ]
        self._metainfo['classes'] = tuple(classes)

    def get_cat_ids(self, idx: int) -> list[int]:
        """The label of an image as a list of one, without a look at the image."""
        self.full_init()
        return (
            [self.data_list.label(idx)]
            if isinstance(self.data_list, ImageList)
            else super().get_cat_ids(idx)
        )

    def get_gt_labels(self) -> np.ndarray:
        """The labels of all images, (N,)."""
        self.full_init()
        return (
            self.data_list.all_labels()
            if isinstance(self.data_list, ImageList)
            else super().get_gt_labels()
        )

    def _get_unserialized_subset(self, indices: int | Sequence[int]) -> Sequence[dict]:
        if isinstance(indices, (int, np.integer)):
            return self.data_list[:indices] if indices >= 0 else self.data_list[indices:]
        if isinstance(self.data_list, ImageList):
            return self.data_list.select(indices)
        return super()._get_unserialized_subset(indices)

    def digest_of_names(self) -> str | None:
        """Returns a digest of the paths of all images, in order, by which a resumed run notices
        other data.
        """
        self.full_init()
        return self.data_list.digest() if isinstance(self.data_list, ImageList) else None

    def _copy_without_annotation(self, memo: dict | None = None) -> IndexedImages:
        # mmengine's own default is one dict for all copies, which holds ids of objects that are
        # gone: whatever has come to such an id since would be replaced by a copy of something else.
        return super()._copy_without_annotation({} if memo is None else memo)

    def _annotate(self, images: ImageList, pairs: list[tuple[str, str | None]]) -> None:
        images.places = np.array(find_annotated(images, [name for name, _ in pairs], self.ann_file))
        if not self.with_label:
            return
        labels = {}
        for place, (name, label) in zip(images.places.tolist(), pairs, strict=True):
            if labels.setdefault(place, label) != label:
                raise ValueError(
                    f'{self.ann_file} gives {printable(name)} two labels, {labels[place]} and '
                    f'{label}; remove one line'
                )
        numbers = self._number(images, set(labels.values()))
        images.labels = np.full(len(images.names), -1)
        images.labels[list(labels)] = [numbers[label] for label in labels.values()]

    def _label_by_members(self, images: ImageList, labels: list[str], faults: list[str]) -> None:
        by_label = images.arrays['label']
        if unlabelled := np.flatnonzero(by_label < 0).tolist():
            reason = f' ({faults[0]})' if faults else ''
            raise ValueError(
                f'{len(unlabelled)} images in {images.source} have no label, such as '
                f'{printable(images.names[unlabelled[0]])}{reason}'
            )
        numbers = self._number(images, labels)
        images.labels = np.array([numbers[label] for label in labels])[by_label]

    def _label_by_folders(self, images: ImageList, folders: list[str], empty: list[str]) -> None:
        if '' in folders:
            raise ValueError(
                f'some images in {images.source} lie in no class folder; put each into a folder '
                'of its class, or name '
                'the labels in an ann_file'
            )
        if self.CLASSES is None and empty:
            print_log(
                f'{printable(images.source)} has {len(empty)} class folders without images, such '
                'as '
                f'{printable(empty[0])}; they count as classes, so that all others keep their '
                'numbers',
                logger='current',
                level=logging.WARNING,
            )
        elif self.CLASSES is not None and len(self.CLASSES) != len(folders):
            # Where all classes are named, folders of others do no harm as long as they are empty.
            folders = [
                folder for folder in folders if folder not in empty or folder in self.CLASSES
            ]
        # Other names than those of the folders are taken in the folders' order, as mmpretrain does.
        if set(folders).isdisjoint(self.CLASSES or folders) and len(self.CLASSES) == len(folders):
            images.numbers = {folder: number for number, folder in enumerate(folders)}
        else:
            images.numbers = self._number(images, folders, named=True)

    def _number(
        self, images: ImageList, labels: Iterable[str], named: bool = False
    ) -> dict[str, int]:
        """Numbers labels by ``classes``, or as the numbers that they are, or in alphabetical
        order.
        """
        labels = sorted(labels)
        digits = [label for label in labels if label.isdecimal()]
        if self.CLASSES is None and not named and digits:
            if names := [label for label in labels if not label.isdecimal()]:
                raise ValueError(
                    f'{self.ann_file or images.source} has labels that are numbers, such as '
                    f'{digits[0]}, and labels '
                    f'that are names, such as {names[0]}; use one of both, or name all classes '
                    'with classes=[…]'
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
