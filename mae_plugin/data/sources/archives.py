"""Sorts the members of an archive (tar or zip) into images, labels, folders and the rest."""

from __future__ import annotations

import posixpath
from collections.abc import Callable
from typing import Any, NamedTuple

from .entries import (
    ARCHIVES,
    FOLDER_LINKS,
    OUTSIDE,
    REPLACED,
    SPECIAL,
    LeftOut,
    inner_name,
    is_archive,
    is_hidden,
)
from .labels import MemberLabels, is_label_file


class ArchiveScan(NamedTuple):
    """Content of an archive.

    Attributes:
        images: name, place and label of every image.
        folders: all folders that are members themselves.
        label_errors: for each image with an invalid label, a sentence with the reason.
        left_out: all other members that could hold images.
    """

    images: list[tuple[str, Any, str | None]]
    folders: set[str]
    label_errors: list[str]
    left_out: LeftOut


class ArchiveMembers:
    """Sorts the members of an archive.

    Args:
        extensions: file name extensions of images, in lower case.
        read: returns the content of the member at a place.

    Attributes:
        number: number of regular files so far.
        left_out: members that are left out.
    """

    def __init__(self, extensions: tuple[str, ...], read: Callable[[Any], bytes]) -> None:
        self.left_out = LeftOut()
        self.number = 0
        self._extensions, self._read = extensions, read
        # All files, because links may lead to any of them.
        self._files: dict[str, object] = {}
        self._links: dict[str, str | None] = {}
        self._folders: set[str] = set()
        self._labels = MemberLabels()

    def add_folder(self, path: str) -> None:
        """Records a folder."""
        name = inner_name(path)
        if name is None:
            self.left_out.add(OUTSIDE, path)
        elif name != '.' and not is_hidden(name):
            self._folders.add(name)

    def add_file(self, path: str, place: object) -> None:
        """Records a regular file."""
        name = self._inner(path)
        if name is None:
            return
        if name in self._files and self._is_image(name):
            self.left_out.add(REPLACED, name)
        self.number += 1
        self._files[name] = place
        self._links.pop(name, None)
        if is_hidden(name):
            return
        if is_label_file(name):
            self._labels.add(name, self._read(place))
        elif is_archive(name) and not self._is_image(name):
            self.left_out.add(ARCHIVES, name)

    def add_link(self, path: str, target: str) -> None:
        """Records a link to a path within the archive."""
        name = self._inner(path)
        if name is not None:
            self._links[name] = inner_name(target)

    def add_special(self, path: str) -> None:
        """Records a member that is neither a file, a folder nor a link."""
        name = self._inner(path)
        if name is not None and self._is_image(name):
            self.left_out.add(SPECIAL, name)

    def scan(self) -> ArchiveScan:
        """Returns the content of the archive, with all links resolved."""
        places = {name: place for name, place in self._files.items() if self._is_image(name)}
        folders = self._all_folders() if self._links else set()
        for name, target in self._links.items():
            if is_hidden(name):
                continue
            if self._is_image(name) or is_label_file(name):
                self._follow(name, places)
            elif target in folders:
                self.left_out.add(FOLDER_LINKS, name)
        images, label_errors = [], []
        for name, place in places.items():
            label = self._labels.label(name)
            images.append((name, place, label))
            error = self._labels.error(name) if label is None else None
            if error:
                label_errors.append(error)
        return ArchiveScan(images, self._folders, label_errors, self.left_out)

    def _inner(self, path: str) -> str | None:
        """Returns the normalized path of a member; None, and recorded for images, if outside."""
        name = inner_name(path)
        if name is None and path.lower().endswith(self._extensions):
            self.left_out.add(OUTSIDE, path)
        return name

    def _is_image(self, name: str) -> bool:
        """Returns whether a path is that of an image, by its extension."""
        return name.lower().endswith(self._extensions) and not is_hidden(name)

    def _all_folders(self) -> set[str]:
        """Returns the folders that are members, or that contain members."""
        found = set(self._folders)
        for name in self._files:
            while (name := posixpath.dirname(name)) and name not in found:
                found.add(name)
        return found

    def _follow(self, name: str, places: dict[str, object]) -> None:
        """Adds the image or label to which a link leads."""
        target = self._links[name]
        # Chains are cut after 40 links, as on Linux, so that a circle ends.
        for _ in range(40):
            if target not in self._links:
                break
            target = self._links[target]
        if target not in self._files:
            self.left_out.add(SPECIAL, name)
        elif self._is_image(name):
            places[name] = self._files[target]
        else:
            self._labels.add(name, self._read(self._files[target]))
