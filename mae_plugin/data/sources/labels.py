"""Labels as people write them down, and those beside images in tar files."""

from __future__ import annotations

import json
import os
import re

from ...utils.printable import printable

_NUMBER = re.compile(r'[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?|[+-]?(nan|inf|infinity)', re.IGNORECASE)
_LARGEST = 2**31 - 1


def checked_label(value: object, place: str) -> str:
    """Returns a label as text: a class name, or the decimal digits of a whole number.

    Args:
        value: what was found, as JSON or as text.
        place: where it was found, for the error.

    Raises:
        ValueError: if it is neither a name of at least one letter nor a whole number from 0.
    """
    label = value.strip() if isinstance(value, str) else value
    if isinstance(label, str) and label and not _NUMBER.fullmatch(label) and _is_unicode(label):
        return label
    if isinstance(label, str) and _NUMBER.fullmatch(label):
        label = int(label) if label.isdecimal() else float(label)
    if isinstance(label, float) and label.is_integer():
        label = int(label)
    if isinstance(label, int) and not isinstance(label, bool) and 0 <= label <= _LARGEST:
        return str(label)
    raise ValueError(
        f'{printable(place)} has the label {json.dumps(value)}; a label is a class name or a '
        'whole number from 0 to '
        f'{_LARGEST}'
    )


def _is_unicode(text: str) -> bool:
    return not any('\ud800' <= letter <= '\udfff' for letter in text)


def member_key(name: str) -> str:
    """What an image and its label have in common: the path up to the first dot of the file's
    name.
    """
    folder, base = os.path.split(name)
    return os.path.join(folder, base.partition('.')[0])


def is_label_file(name: str) -> bool:
    """Whether a member of a tar file is one that holds a label: ``NAME.cls`` or ``NAME.json``."""
    return os.path.basename(name).partition('.')[2] in ('cls', 'json')


class MemberLabels:
    """Labels that the members of a tar file give to images of the same key."""

    def __init__(self) -> None:
        self._labels: dict[str, dict[str, str]] = {}
        self._faults: dict[str, dict[str, str]] = {}

    def add(self, name: str, content: bytes) -> None:
        """Takes down what a member says."""
        key, ending = member_key(name), os.path.basename(name).partition('.')[2]
        try:
            label = _content_label(name, content, ending)
        # Of interest only where images are read with labels.
        except ValueError as error:
            self._faults.setdefault(key, {})[ending] = str(error)
        else:
            if label is not None:
                self._labels.setdefault(key, {})[ending] = label

    def label(self, image: str) -> str | None:
        """The label of an image, the one in ``.cls`` before the one in ``.json``; None if it has no
        valid one.
        """
        found = self._labels.get(member_key(image), {})
        return (
            None
            if 'cls' in self._faults.get(member_key(image), {})
            else found.get('cls', found.get('json'))
        )

    def fault(self, image: str) -> str | None:
        """What is wrong with the label of an image that has none; None if there is no trace of
        one.
        """
        found = self._faults.get(member_key(image), {})
        return found.get('cls', found.get('json'))


def _content_label(name: str, content: bytes, ending: str) -> str | None:
    """The label in a member, None if it is JSON about other things."""
    if ending == 'cls':
        try:
            return checked_label(content.decode('utf-8-sig'), name)
        except UnicodeDecodeError:
            raise ValueError(f'{printable(name)} is not UTF-8: {content[:20]!r}') from None
    try:
        notes = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise ValueError(f'{printable(name)} is no JSON: {error}') from None
    if not isinstance(notes, dict) or not {'label', 'cls'} & notes.keys():
        return None
    label = notes.get('label')
    return checked_label(notes.get('cls') if label is None else label, name)
