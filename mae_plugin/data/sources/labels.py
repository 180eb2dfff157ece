"""Validation of labels, and labels beside images in tar files."""

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
        value: label from JSON or text.
        place: name of its origin, for the error.

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
        f'whole number from 0 to {_LARGEST}'
    )


def _is_unicode(text: str) -> bool:
    """Returns whether a text has no lone surrogates, that is no bytes of invalid UTF-8."""
    return not any('\ud800' <= letter <= '\udfff' for letter in text)


def member_key(name: str) -> str:
    """Returns the key shared by an image and its label: the path up to the file's first dot."""
    folder, base = os.path.split(name)
    return os.path.join(folder, base.partition('.')[0])


def is_label_file(name: str) -> bool:
    """Returns whether a member of a tar file holds a label: ``NAME.cls`` or ``NAME.json``."""
    return os.path.basename(name).partition('.')[2] in ('cls', 'json')


class MemberLabels:
    """Labels in members of a tar file, for the images with the same key."""

    def __init__(self) -> None:
        # By key, then by the extension of the member.
        self._labels: dict[str, dict[str, str]] = {}
        self._errors: dict[str, dict[str, str]] = {}

    def add(self, name: str, content: bytes) -> None:
        """Records the label in a member, or the reason why it is not valid."""
        key, extension = member_key(name), os.path.basename(name).partition('.')[2]
        try:
            label = _content_label(name, content, extension)
        # The reason is reported only if images are read with labels.
        except ValueError as error:
            self._errors.setdefault(key, {})[extension] = str(error)
        else:
            if label is not None:
                self._labels.setdefault(key, {})[extension] = label

    def label(self, image: str) -> str | None:
        """Returns the label of an image, from ``.cls`` before ``.json``; None if not valid."""
        key = member_key(image)
        if 'cls' in self._errors.get(key, {}):
            return None
        found = self._labels.get(key, {})
        return found.get('cls', found.get('json'))

    def error(self, image: str) -> str | None:
        """Returns why the label of an image is not valid; None if there is no label."""
        found = self._errors.get(member_key(image), {})
        return found.get('cls', found.get('json'))


def _content_label(name: str, content: bytes, extension: str) -> str | None:
    """Returns the label in a member; None for JSON without a label."""
    if extension == 'cls':
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
