"""The images of an index as a list of dicts, each of which is made when it is looked at."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping, Sequence

import numpy as np

from .index import Index, Names
from .open_files import OpenFiles


class ImageList(Sequence):
    """What is known of every image of an index before it is decoded.

    Takes the place of mmengine's ``data_list`` without its memory: slices, selections and copies
    share the index.

    Args:
        source: folder of the images, or tar file.
        index: index of the source.
        shards: tar files that the index is of; none for a folder.

    Attributes:
        places: positions in the index of the images of this list, None for all of them in order.
        labels: labels of all images of the index by position, None where there are none or
            ``numbers`` says them.
        numbers: labels by first-level folder, None where these are not the labels.
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
                digest.update(np.ascontiguousarray(array))
        return digest.hexdigest()

    def __getitem__(self, index: int | slice) -> dict | ImageList:
        """Describes an image, or gives a part of the list.

        Returns:
            ``img_path``, ``gt_label`` if there are labels, and from tar files ``img_bytes``, or
            ``img_error`` if these could not be read.
        """
        if isinstance(index, slice):
            places = np.arange(len(self.names)) if self.places is None else self.places
            return self._view(places[index])
        place = self._place(index)
        name = self.names[place]
        info = dict(img_path=os.path.join(self.source, name))
        if self.shards:
            path = self.shards[self.arrays['shard'][place]]
            info['img_path'] = os.path.join(path, name)
            offset, size = int(self.arrays['offset'][place]), int(self.arrays['size'][place])
            try:
                info['img_bytes'] = self._open_files.read(path, offset, size)
            # Whether a run goes on without it is said where other images are read, in the
            # transform.
            except (OSError, ValueError) as error:
                info['img_error'] = error
        if self.labels is not None or self.numbers is not None:
            info['gt_label'] = self.label(index)
        return info

    def name(self, index: int) -> str:
        """The path of an image below its source or within its tar file."""
        return self.names[self._place(index)]

    def label(self, index: int) -> int:
        """The label of an image, without a look at the image."""
        place = self._place(index)
        if self.labels is not None:
            return int(self.labels[place])
        if self.numbers is None:
            raise ValueError(
                f'the images in {self.source} were listed without labels; set with_label=True'
            )
        return self.numbers[self.names[place].partition('/')[0]]

    def all_labels(self) -> np.ndarray:
        """The labels of all images of the list, (N,) int64."""
        if self.labels is not None:
            return (self.labels if self.places is None else self.labels[self.places]).astype(
                np.int64
            )
        return np.array([self.label(index) for index in range(len(self))], dtype=np.int64)

    def select(self, indices: Sequence[int] | np.ndarray) -> ImageList:
        """The images at these positions of the list, in this order; a position may occur several
        times.

        Raises:
            TypeError: if these are no integers.
            IndexError: if there is no such position.
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
        """The same images with other numbers for their labels; labels that ``new`` does not name
        become -1.
        """
        view = self._view(self.places)
        if self.labels is not None:
            old, inverse = np.unique(self.labels, return_inverse=True)
            view.labels = np.array([new.get(int(label), -1) for label in old])[inverse]
        if self.numbers is not None:
            view.numbers = {name: new.get(label, -1) for name, label in self.numbers.items()}
        return view

    def __deepcopy__(self, memo: dict) -> ImageList:
        """Shares the index, which nothing changes."""
        return self._view(self.places)

    def _view(self, places: np.ndarray | None) -> ImageList:
        view = object.__new__(type(self))
        view.__dict__.update(self.__dict__, places=places)
        return view

    def _place(self, index: int) -> int:
        index = range(len(self))[index]
        return index if self.places is None else int(self.places[index])
