"""The dataset: images of a folder tree or of tar files, labelled or not."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Sequence

import numpy as np
from mmpretrain.datasets import BaseDataset

from .folder import IMAGE_EXTENSIONS, index_folder
from .index import Names
from .shards import find_shards, index_shards, read_member


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
        indices: use the first so many images, or those at these places.
        lazy_init: leave the images to be looked for until they are needed.
        **kwargs: further arguments of mmpretrain's ``BaseDataset``, such as ``pipeline``, and ``classes``: class
            names in the order of their numbers, or a file with one in a line.

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
        indices: int | Sequence[int] | None = None,
        lazy_init: bool = False,
        **kwargs,
    ) -> None:
        self.with_label = with_label
        self.extensions = tuple(sorted(extension.lower() for extension in extensions))
        self.index_dir = index_dir
        # Paths of open tar files and what the system calls them.
        self._open_files: dict[str, int] = {}
        kwargs |= dict(ann_file=ann_file, data_root=data_root, data_prefix=data_prefix)
        super().__init__(**kwargs, lazy_init=True, serialize_data=False)
        self._indices = indices
        if not lazy_init:
            self.full_init()

    def full_init(self) -> None:
        """Opens the index, making it first if need be."""
        if self._fully_initialized:
            return
        if not self.img_prefix:
            raise ValueError('data_root and data_prefix are empty; name the folder of the images in one of them')
        self._source = os.path.normpath(self.img_prefix)
        self._shards = find_shards(self._source)
        if self._shards:
            index = index_shards(self._shards, self.extensions, self.index_dir)
        else:
            index = index_folder(self._source, self.extensions, self.index_dir)
        self._arrays = {name: array.numpy() for name, array in index.arrays.items()}
        self._names = Names(index.arrays['text'], index.arrays['ends'])
        if len(self._names) == 0:
            raise FileNotFoundError(f'there is no image in {self._source} (looked for {", ".join(self.extensions)})')
        self._places: np.ndarray | None = None
        self._labels: np.ndarray | None = None
        self._numbers: dict[str, int] = {}
        if self.ann_file:
            self._annotate(_read_annotations(self.ann_file, self.with_label))
        elif self.with_label and index.notes.get('labels'):
            self._label_by_members(index.notes['labels'])
        elif self.with_label:
            self._label_by_folders(index.notes['classes'])
        if self._indices is not None:
            places = np.arange(len(self._names)) if self._places is None else self._places
            self._places = places[: self._indices] if isinstance(self._indices, int) else places[list(self._indices)]
        self._fully_initialized = True

    def __len__(self) -> int:
        self.full_init()
        return len(self._names) if self._places is None else len(self._places)

    def get_data_info(self, idx: int) -> dict:
        """What is known of an image before it is decoded.

        Returns:
            ``img_path``, ``gt_label`` if asked for, and from tar files ``img_bytes``, or ``img_error`` if these could
            not be read.
        """
        idx = range(len(self))[idx]
        place = idx if self._places is None else int(self._places[idx])
        name = self._names[place]
        info = dict(sample_idx=idx, img_path=os.path.join(self._source, name))
        if self._shards:
            path = self._shards[self._arrays['shard'][place]]
            info['img_path'] = os.path.join(path, name)
            offset, size = int(self._arrays['offset'][place]), int(self._arrays['size'][place])
            try:
                info['img_bytes'] = read_member(self._open_files, path, offset, size)
            # Whether a run goes on without it is said where other images are read, in the transform.
            except (OSError, ValueError) as error:
                info['img_error'] = error
        if self.with_label:
            by_place = self._labels is not None
            info['gt_label'] = int(self._labels[place]) if by_place else self._numbers[name.partition('/')[0]]
        return info

    def _annotate(self, labels: dict[str, str | None]) -> None:
        places = {self._names[place]: place for place in range(len(self._names))}
        absent = [name for name in labels if name not in places]
        if absent:
            raise FileNotFoundError(
                f'{len(absent)} of the {len(labels)} images in {self.ann_file} are not in {self._source}, such as '
                f'{absent[0]}; paths count from there'
            )
        self._places = np.array([places[name] for name in labels])
        if self.with_label:
            numbers = self._number(set(labels.values()))
            self._labels = np.full(len(self._names), -1)
            self._labels[self._places] = [numbers[label] for label in labels.values()]

    def _label_by_members(self, labels: list[str]) -> None:
        numbers = self._number(labels)
        self._labels = np.array([numbers[label] for label in labels])[self._arrays['label']]
        if unlabelled := np.flatnonzero(self._arrays['label'] < 0).tolist():
            raise ValueError(
                f'{len(unlabelled)} images in {self._source} have no label, such as {self._names[unlabelled[0]]}'
            )

    def _label_by_folders(self, folders: list[str]) -> None:
        if '' in folders:
            raise ValueError(
                f'some images in {self._source} lie in no class folder; put each into a folder of its class, or name '
                'the labels in an ann_file'
            )
        # Other names than those of the folders are taken in the folders' order, as mmpretrain does.
        if not set(folders) <= set(self.CLASSES or folders) and len(self.CLASSES) == len(folders):
            self._numbers = {folder: number for number, folder in enumerate(folders)}
        else:
            self._numbers = self._number(folders, named=True)

    def _number(self, labels: Iterable[str], named: bool = False) -> dict[str, int]:
        """Numbers labels by ``classes``, or as the numbers that they are, or in alphabetical order."""
        labels = sorted(labels)
        if self.CLASSES is None and not named and all(label.isdigit() for label in labels):
            return {label: int(label) for label in labels}
        classes = self._metainfo.setdefault('classes', tuple(labels))
        known = {} if named else {str(number): number for number in range(len(classes))}
        known |= {name: number for number, name in enumerate(classes)}
        if unknown := [label for label in labels if label not in known]:
            raise ValueError(f'{self._source} has labels that are not among its {len(classes)} classes: {unknown[:5]}')
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
