"""Printing of file names, which on Linux are bytes and need not be UTF-8."""

from __future__ import annotations


def printable(text: object) -> str:
    r"""Returns a text that every log, terminal and file format accepts.

    Bytes that are not UTF-8 appear as ``\xe9``. Python represents such bytes of a file name as lone
    surrogates, which cannot be encoded.
    """
    text = str(text)
    if text.isascii():
        return text
    errors = 'surrogateescape' if _is_from_bytes(text) else 'backslashreplace'
    return text.encode(errors=errors).decode(errors='backslashreplace')


def _is_from_bytes(text: str) -> bool:
    """Returns whether all surrogates in a text stand for bytes of a file name."""
    return all('\udc80' <= letter <= '\udcff' for letter in text if '\ud800' <= letter <= '\udfff')
