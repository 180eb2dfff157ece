"""What a JPEG file says before its pixels: which of the JPEG processes it takes, its size, its
orientation.

libjpeg decides by the first frame header (SOF) it meets, and so does this: segments are followed in
its own way. Files that its reduced or converting decoders do not take are hence known before they
get there.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from .orientation import parse_orientation

_START_OF_SCAN, _START_OF_IMAGE, _END_OF_IMAGE = 0xDA, 0xD8, 0xD9
_APP0, _APP1, _APP14, _COMMENT = 0xE0, 0xE1, 0xEE, 0xFE
# Without a length: TEM, and restarts.
_BARE = frozenset((0x01, *range(0xD0, 0xD8)))
# SOF0 to SOF15; the gaps are Huffman tables, an extension and arithmetic conditioning.
_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_EXIF, _XMP = b'Exif\0\0', b'http://ns.adobe.com/xap/1.0/\0'
# Of the first component over the other two, as libjpeg-turbo knows them by name.
_USUAL_SAMPLING = frozenset((first, 0x11, 0x11) for first in (0x11, 0x21, 0x22, 0x12, 0x41, 0x14))

MAX_SCANS = 100
"""Scans a JPEG may have; encoders make about ten, and each takes the decoder through all blocks of
the image.
"""


class JpegHeader(NamedTuple):
    """The frame header of a JPEG, and what its metadata say of its orientation."""

    process: int
    """0 to 15, the number of the frame marker SOF: 0 to 3 are baseline, extended, progressive and
    lossless, and 9 and 10 extended and progressive with arithmetic coding.
    """
    precision: int
    """Bits per sample."""
    height: int
    width: int
    sampling: tuple[int, ...]
    """Horizontal factor * 16 + vertical factor of every component."""
    orientation: int
    """1 to 8 as in Exif."""
    scan: int
    """Where the first scan starts, in bytes from the start of the file."""
    is_split: bool
    """Whether the first scan leaves components to other scans."""

    @property
    def is_turbo(self) -> bool:
        """Whether libjpeg-turbo decodes this to gray, RGB and BGR, at any scale: gray or three
        components of 8 bits.
        """
        sampling = self.sampling
        usual = len(sampling) == 1 or sampling in _USUAL_SAMPLING
        return usual and self.precision == 8 and self.process in (0, 1, 2, 9, 10)

    @property
    def least_bytes(self) -> int:
        """The least that so many pixels take: 2 bits for a block of 64, 1 if progressive, and 1 a
        sample if lossless.

        Arithmetic coding takes as much for all but images of one color, which it brings below any
        such bound.
        """
        side = 1 if self.process == 3 else 8
        most = (
            max(factors >> 4 for factors in self.sampling),
            max(factors & 15 for factors in self.sampling),
        )
        units = 0
        for factors in self.sampling:
            across = -(-self.width * (factors >> 4) // (most[0] * side))
            along = -(-self.height * (factors & 15) // (most[1] * side))
            units += across * along
        return units * (2 if self.process in (0, 1) else 1) // 8


def read_jpeg_header(data: bytes) -> JpegHeader | None:
    """Reads the segments of a JPEG up to its first scan; None if they break off or are none that
    libjpeg takes.
    """
    frame, exif, xmp = None, b'', b''
    for marker, start, end in _segments(data):
        if marker == _APP1:
            if data.startswith(_EXIF, start):
                # Longer than a segment, Exif goes on in the next.
                exif += data[start + len(_EXIF) : end]
            elif data.startswith(_XMP, start):
                xmp = data[start + len(_XMP) : end]
        elif marker == _START_OF_SCAN:
            if frame is None or start == end:
                return None
            is_split = data[start] < len(frame[-1])
            return JpegHeader(*frame, _orientation(exif, xmp), start - 4, is_split)
        elif marker in _FRAMES:
            if frame is not None:
                return None
            frame = _frame(marker, data[start:end])
            if frame is None:
                return None
    return None


def count_scans(data: bytes, header: JpegHeader) -> int:
    """Counts the scans of a JPEG, one for each that starts before the end of the image."""
    # Most files end here: within coded data, and in most segments, these bytes do not come
    # together.
    number = data.count(b'\xff\xda', header.scan)
    if number <= MAX_SCANS:
        return number
    number, place = 0, header.scan
    while (place := data.find(b'\xff', place)) >= 0 and place + 4 <= len(data):
        marker = data[place + 1]
        if marker == _END_OF_IMAGE:
            break
        if marker in (0, 0xFF) or marker in _BARE:
            place += 1 if marker == 0xFF else 2
            continue
        number += marker == _START_OF_SCAN
        place += 2 + max(int.from_bytes(data[place + 2 : place + 4], 'big'), 2)
    return number


def plain_jpeg(data: bytes) -> bytes:
    """Returns a JPEG with nothing before its first scan but what decoding needs, hence nothing to
    be warned of.
    """
    parts = [b'\xff\xd8']
    for marker, start, end in _segments(data):
        if marker == _START_OF_SCAN:
            return b''.join((*parts, data[start - 4 :]))
        if marker == _APP0 and data.startswith(b'JFIF\0', start):
            parts.append(b'\xff\xe0\0\x10JFIF\0\1\1\0\0\1\0\1\0\0')
        elif marker < _APP0 or marker == _APP14:
            parts.append(data[start - 4 : end])
    return data


def _segments(data: bytes) -> Iterator[tuple[int, int, int]]:
    """Yields marker, start and end of the content of every segment, up to the first scan's or what
    is no segment.
    """
    place, size = 2, len(data)
    while place + 4 <= size:
        if data[place] != 0xFF:
            # libjpeg skips what is between segments, with a warning.
            place = data.find(b'\xff', place)
            if place < 0:
                return
            continue
        marker = data[place + 1]
        if marker == 0xFF:
            place += 1
            continue
        if marker == 0 or marker in _BARE:
            place += 2
            continue
        if marker in (_START_OF_IMAGE, _END_OF_IMAGE):
            return
        end = place + 2 + max(data[place + 2] << 8 | data[place + 3], 2)
        if end > size:
            return
        yield marker, place + 4, end
        if marker == _START_OF_SCAN:
            return
        place = end


def _frame(marker: int, content: bytes) -> tuple | None:
    """Process, precision, height, width and sampling of a frame header."""
    if len(content) < 6 or len(content) < 6 + 3 * content[5] or not content[5]:
        return None
    sampling = tuple(content[7 : 6 + 3 * content[5] : 3])
    if not all(0 < factors >> 4 < 5 and 0 < factors & 15 < 5 for factors in sampling):
        return None
    height, width = content[1] << 8 | content[2], content[3] << 8 | content[4]
    return marker - 0xC0, content[0], height, width, sampling


def _orientation(exif: bytes, xmp: bytes) -> int:
    return parse_orientation(exif, xmp) if exif or xmp else 1
