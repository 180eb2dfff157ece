"""ImageList, the images of an index as a list of dicts that are made on access."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from .index import Index, Names
from .open_files import OpenFiles


class ImageList(Sequence):
    """List of the images of an index, before decoding.

    Replaces mmengine's ``data_list`` without its memory: slices, selections and copies share the
    index.

    Args:
        source: folder of the images, or tar file.
        index: index of the source.
        shards: tar files of the index; empty for a folder.

    Attributes:
        places: positions in the index of the images of this list, None for all of them in order.
        labels: labels of all images of the index by position, None without labels or if ``numbers``
            holds them.
        numbers: labels by first-level folder, None unless folders are the labels.
    """

    def __init__(self, source: str, index: Index, shards: Sequence[str] = ()) -> None:
        self.source = source
        self.shards = shards
        self.arrays = {name: array.numpy() for name, array in index.arrays.items()}
        self.names = Names(index.arrays['text'], index.arrays['ends'])
        self.places: np.ndarray | None = None
        self.labels: np.ndarray | None = None
        self.numbers: dict[str, int] | None = None
        self._open_files = OpenFiles()

    def __len__(self) -> int:
        return len(self.names) if self.places is None else len(self.places)

    def digest(self) -> str:
        """Returns a digest of the paths of all images, in order."""
        digest = hashlib.blake2b(digest_size=16)
        for array in (self.arrays['text'], self.arrays['ends'], self.places):
            if array is not None:
                digest.update(np.ascontiguousarray(array).data)
        return digest.hexdigest()

    # Returns either kind by the type of the index.
    def __getitem__(self, index: int | slice) -> Any:
        """Returns the dict of an image, or the list of a slice.

        Returns:
            ``img_path``, ``gt_label`` if there are labels, and for tar files ``img_bytes``, or
            ``img_error`` if reading failed.
        """
        if isinstance(index, slice):
            places = np.arange(len(self.names)) if self.places is None else self.places
            return self._view(places[index])
        place = self._place(index)
        name = self.names[place]
        info: dict[str, Any] = dict(img_path=os.path.join(self.source, name))
        if self.shards:
            path = self.shards[self.arrays['shard'][place]]
            info['img_path'] = os.path.join(path, name)
            offset, size = int(self.arrays['offset'][place]), int(self.arrays['size'][place])
            try:
                info['img_bytes'] = self._open_files.read(path, offset, size)
            # The transform decides whether the run continues, as for images in folders.
            except (OSError, ValueError) as error:
                info['img_error'] = error
        if self.labels is not None or self.numbers is not None:
            info['gt_label'] = self.label(index)
        return info

    def name(self, index: int) -> str:
        """Returns the path of an image below its source or within its tar file."""
        return self.names[self._place(index)]

    def label(self, index: int) -> int:
        """Returns the label of an image, without reading the image."""
        place = self._place(index)
        if self.labels is not None:
            return int(self.labels[place])
        if self.numbers is None:
            raise ValueError(
                f'the images in {self.source} were listed without labels; set with_label=True'
            )
        return self.numbers[self.names[place].partition('/')[0]]

    def all_labels(self) -> np.ndarray:
        """Returns the labels of all images of the list, (N,) int64."""
        if self.labels is None:
            return np.array([self.label(index) for index in range(len(self))], dtype=np.int64)
        labels = self.labels if self.places is None else self.labels[self.places]
        return labels.astype(np.int64)

    def select(self, indices: Sequence[int] | np.ndarray) -> ImageList:
        """Returns the images at positions of the list, in that order, duplicates included.

        Raises:
            TypeError: if the positions are not integers.
            IndexError: if a position does not exist.
        """
        chosen = np.asarray(indices)
        if chosen.ndim != 1 or (chosen.size and not np.issubdtype(chosen.dtype, np.integer)):
            raise TypeError(
                f'indices={indices!r:.80} must be a number of images or a sequence of integers'
            )
        if chosen.size and not -len(self) <= chosen.min() <= chosen.max() < len(self):
            raise IndexError(
                f'indices go from {chosen.min()} to {chosen.max()}, but there are {len(self)} '
                'images'
            )
        chosen = chosen.astype(np.int64) % max(1, len(self))
        return self._view(chosen if self.places is None else self.places[chosen])

    def relabeled(self, new: Mapping[int, int]) -> ImageList:
        """Returns the same images with other labels; labels that are not in ``new`` become -1."""
        view = self._view(self.places)
        if self.labels is not None:
            old, inverse = np.unique(self.labels, return_inverse=True)
            view.labels = np.array([new.get(int(label), -1) for label in old])[inverse]
        if self.numbers is not None:
            view.numbers = {name: new.get(label, -1) for name, label in self.numbers.items()}
        return view

    def __deepcopy__(self, memo: dict) -> ImageList:
        """Returns a list that shares the index, which is never modified."""
        return self._view(self.places)

    def _view(self, places: np.ndarray | None) -> ImageList:
        """Returns a list of the images at positions of the index, with all else shared."""
        view = object.__new__(type(self))
        view.__dict__.update(self.__dict__, places=places)
        return view

    def _place(self, index: int) -> int:
        """Returns the position in the index of the image at a position of the list."""
        index = range(len(self))[index]
        return index if self.places is None else int(self.places[index])
