"""The dataset: images of a folder tree or of tar files, labelled or not."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Sequence

import numpy as np
from mmpretrain.datasets import BaseDataset

from .classes import renumber
from .folder import IMAGE_EXTENSIONS, index_folder
from .image_list import ImageList
from .shards import find_shards, index_shards


class IndexedImages(BaseDataset):
    """Images of a folder tree, or of tar files in one folder, found through an index that is made once.

    The index is mapped from disk: a source of millions of images opens at once and takes no memory of its own in any
    process. Labels come from ``ann_file``, else from the ``.cls`` or ``.json`` members of tar files, else from the
    first-level folders in alphabetical order.

    Args:
        data_root: folder of the dataset.
        data_prefix: folder of the images below it, or a tar file; or mmpretrain's ``dict(img_path=…)``.
        ann_file: a text file with lines ``path label``, or a JSON file ``{path: label}``: the images to use, by path
            below ``data_prefix``, and their labels. Without labels, lines of paths alone will do.
        with_label: whether images come with a label, ``gt_label``.
        extensions: endings of image files.
        index_dir: where indices are kept; ``mae_plugin`` in ``$XDG_CACHE_HOME`` or ``~/.cache`` if left out.
        lazy_init: leave the images to be looked for until they are needed.
        serialize_data: accepted for mmengine's sake; the index takes no memory that would be worth it.
        **kwargs: further arguments of mmpretrain's ``BaseDataset``, such as ``pipeline``, ``indices`` (the first so
            many images, the last if negative, or those at these positions) and ``classes``: class names in the order
            of their numbers, or a file with one in a line.

    Attributes:
        has_given_classes: whether the class names come from an argument, and not from the images.

    Raises:
        FileNotFoundError: if there is no such folder, no image in it, or not one that ``ann_file`` names.
        ValueError: if labels are asked for and there are none, or some that ``classes`` does not know.
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
            raise ValueError('data_root and data_prefix are empty; name the folder of the images in one of them')
        source = os.path.normpath(self.img_prefix)
        shards = find_shards(source)
        if shards:
            index = index_shards(shards, self.extensions, self.index_dir)
        else:
            index = index_folder(source, self.extensions, self.index_dir)
        images = ImageList(source, index, shards)
        if len(images) == 0:
            raise FileNotFoundError(f'there is no image in {source} (looked for {", ".join(self.extensions)})')
        if self.ann_file:
            self._annotate(images, _read_annotations(self.ann_file, self.with_label))
        elif self.with_label and index.notes.get('labels'):
            self._label_by_members(images, index.notes['labels'])
        elif self.with_label:
            self._label_by_folders(images, index.notes['classes'])
        return images

    def number_like(self, classes: Sequence[str], origin: str) -> None:
        """Numbers the labels by the classes of another dataset, such as that of training (see :func:`renumber`).

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
                    f'{self.img_prefix} has images of the classes {names[:5]}, which are not among the {len(classes)} '
                    f'of {origin} ({", ".join(classes[:5])}{", …" if len(classes) > 5 else ""}); remove or rename '
                    'them, or give both datasets the same classes=[…]'
                )
        if isinstance(self.data_list, ImageList):
            self.data_list = self.data_list.relabeled(numbers)
        else:
            self.data_list = [info | dict(gt_label=numbers[info['gt_label']]) for info in self.data_list]
        self._metainfo['classes'] = tuple(classes)

    def get_cat_ids(self, idx: int) -> list[int]:
        """The label of an image as a list of one, without a look at the image."""
        self.full_init()
        return [self.data_list.label(idx)] if isinstance(self.data_list, ImageList) else super().get_cat_ids(idx)

    def get_gt_labels(self) -> np.ndarray:
        """The labels of all images, (N,)."""
        return np.array([self.get_cat_ids(idx)[0] for idx in range(len(self))], dtype=np.int64)

    def _get_unserialized_subset(self, indices: int | Sequence[int]) -> Sequence[dict]:
        if isinstance(indices, (int, np.integer)):
            return self.data_list[:indices] if indices >= 0 else self.data_list[indices:]
        if isinstance(self.data_list, ImageList):
            return self.data_list.select(indices)
        return super()._get_unserialized_subset(indices)

    def _annotate(self, images: ImageList, labels: dict[str, str | None]) -> None:
        places = {images.names[place]: place for place in range(len(images.names))}
        absent = [name for name in labels if name not in places]
        if absent:
            raise FileNotFoundError(
                f'{len(absent)} of the {len(labels)} images in {self.ann_file} are not in {images.source}, such as '
                f'{absent[0]}; paths count from there'
            )
        images.places = np.array([places[name] for name in labels])
        if self.with_label:
            numbers = self._number(images, set(labels.values()))
            images.labels = np.full(len(images.names), -1)
            images.labels[images.places] = [numbers[label] for label in labels.values()]

    def _label_by_members(self, images: ImageList, labels: list[str]) -> None:
        numbers = self._number(images, labels)
        by_label = images.arrays['label']
        images.labels = np.array([numbers[label] for label in labels])[by_label]
        if unlabelled := np.flatnonzero(by_label < 0).tolist():
            raise ValueError(
                f'{len(unlabelled)} images in {images.source} have no label, such as {images.names[unlabelled[0]]}'
            )

    def _label_by_folders(self, images: ImageList, folders: list[str]) -> None:
        if '' in folders:
            raise ValueError(
                f'some images in {images.source} lie in no class folder; put each into a folder of its class, or name '
                'the labels in an ann_file'
            )
        # Other names than those of the folders are taken in the folders' order, as mmpretrain does.
        if set(folders).isdisjoint(self.CLASSES or folders) and len(self.CLASSES) == len(folders):
            images.numbers = {folder: number for number, folder in enumerate(folders)}
        else:
            images.numbers = self._number(images, folders, named=True)

    def _number(self, images: ImageList, labels: Iterable[str], named: bool = False) -> dict[str, int]:
        """Numbers labels by ``classes``, or as the numbers that they are, or in alphabetical order."""
        labels = sorted(labels)
        if self.CLASSES is None and not named and all(label.isdigit() for label in labels):
            return {label: int(label) for label in labels}
        classes = self._metainfo.setdefault('classes', tuple(labels))
        known = {} if named else {str(number): number for number in range(len(classes))}
        known |= {name: number for number, name in enumerate(classes)}
        if unknown := [label for label in labels if label not in known]:
            raise ValueError(f'{images.source} has labels that are not among its {len(classes)} classes: {unknown[:5]}')
        return known


def _read_annotations(path: str, with_label: bool) -> dict[str, str | None]:
    """The labels of images by path, None where there are none."""
    with open(path, encoding='utf-8') as file:
        if path.endswith('.json'):
            try:
                return {name: str(label) for name, label in json.load(file).items()}
            except (ValueError, AttributeError) as error:
                raise ValueError(f'{path} is no JSON file of the form {{"path": label}}: {error}') from error
        lines = [line.strip() for line in file if line.strip()]
    pairs = [line.rpartition(' ')[::2] if with_label else (line, None) for line in lines]
    if unlabelled := [label for name, label in pairs if not name]:
        raise ValueError(f'the line {unlabelled[0]!r} of {path} has no label; lines are of the form "path label"')
    return dict(pairs)
