"""Names of files, which on Linux are bytes and need not be UTF-8."""

from __future__ import annotations


def printable(text: object) -> str:
    r"""A text that every log, terminal and file format takes: bytes that are not UTF-8 appear as
    ``\xe9``.

    Python passes such bytes of a file name on as lone surrogates, which cannot be encoded.
    """
    text = str(text)
    if text.isascii():
        return text
    return text.encode(
        errors='surrogateescape' if _is_from_bytes(text) else 'backslashreplace'
    ).decode(errors='backslashreplace')


def _is_from_bytes(text: str) -> bool:
    """Whether all surrogates in a text stand for bytes of a file name."""
    return all('\udc80' <= letter <= '\udcff' for letter in text if '\ud800' <= letter <= '\udfff')
