"""Builds TIFF files byte by byte, for forms that common encoders do not write."""

import struct
from collections.abc import Sequence

SHORT, LONG, RATIONAL = 3, 4, 5
_SIZES = {SHORT: 2, LONG: 4, RATIONAL: 8}


def build_tiff(
    pages: Sequence[dict[int, tuple[int, list]]], strips: Sequence[bytes], byteorder: str = '<'
) -> bytes:
    """Builds a classic TIFF file with one strip per page.

    Args:
        pages: tags of each page, a type and values by number, without the tags of the strip.
        strips: strip of each page; pages may share one object.
        byteorder: ``'<'`` or ``'>'``, of the tags; the strips are written unchanged.
    """
    file = bytearray({'<': b'II', '>': b'MM'}[byteorder] + struct.pack(byteorder + 'HI', 42, 8))
    places = {}
    link = 4
    for tags, strip in zip(pages, strips, strict=True):
        if id(strip) not in places:
            places[id(strip)] = len(file)
            file += strip + b'\0' * (len(strip) % 2)
        tags = dict(tags)
        tags[273] = LONG, [places[id(strip)]]
        tags[279] = LONG, [len(strip)]
        entries = b''
        for number, (kind, values) in sorted(tags.items()):
            content = struct.pack(
                byteorder + {SHORT: 'H', LONG: 'I', RATIONAL: 'I'}[kind] * len(values), *values
            )
            if len(content) > 4:
                offset = struct.pack(byteorder + 'I', len(file))
                file += content
            else:
                offset = content.ljust(4, b'\0')
            count = len(content) // _SIZES[kind]
            entries += struct.pack(byteorder + 'HHI', number, kind, count) + offset
        struct.pack_into(byteorder + 'I', file, link, len(file))
        file += struct.pack(byteorder + 'H', len(tags)) + entries
        link = len(file)
        file += b'\0' * 4
    return bytes(file)


def basic_tags(
    height: int, width: int, bits: list[int], photometric: int, compression: int = 1
) -> dict:
    """Returns the tags that every page has."""
    return {
        256: (LONG, [width]),
        257: (LONG, [height]),
        258: (SHORT, bits),
        259: (SHORT, [compression]),
        262: (SHORT, [photometric]),
        277: (SHORT, [len(bits)]),
        278: (LONG, [height]),
    }
