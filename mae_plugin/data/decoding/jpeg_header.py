"""Headers of JPEG files, read before the pixels: JPEG process, size and orientation.

libjpeg decides by the first frame header (SOF) that it finds. The parser here follows segments in
the same way, so files that libjpeg's reduced or converting decoders reject are detected early.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from .orientation import parse_orientation

_START_OF_SCAN, _START_OF_IMAGE, _END_OF_IMAGE = 0xDA, 0xD8, 0xD9
_APP0, _APP1, _APP14, _COMMENT = 0xE0, 0xE1, 0xEE, 0xFE
# Markers without a length: TEM, and restarts.
_BARE = frozenset((0x01, *range(0xD0, 0xD8)))
# SOF0 to SOF15; the gaps are Huffman tables, an extension and arithmetic conditioning.
_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_EXIF, _XMP = b'Exif\0\0', b'http://ns.adobe.com/xap/1.0/\0'
# Sampling factors of the three components for which libjpeg-turbo has a named format.
_USUAL_SAMPLING = frozenset((first, 0x11, 0x11) for first in (0x11, 0x21, 0x22, 0x12, 0x41, 0x14))

MAX_SCANS = 100
"""Largest number of scans of a JPEG.

Encoders write about ten, and the decoder passes over all blocks of the image for each.
"""


class JpegHeader(NamedTuple):
    """Frame header of a JPEG, and its orientation.

    Attributes:
        process: number of the frame marker SOF, 0 to 15. 0 to 3 are baseline, extended, progressive
            and lossless; 9 and 10 are extended and progressive with arithmetic coding.
        precision: bits per sample.
        height: height before rotation, in pixels.
        width: width before rotation, in pixels.
        sampling: horizontal factor * 16 + vertical factor of every component.
        orientation: 1 to 8 as in Exif.
        scan: start of the first scan, in bytes from the start of the file.
        is_split: whether the first scan leaves components to other scans.
    """

    process: int
    precision: int
    height: int
    width: int
    sampling: tuple[int, ...]
    orientation: int
    scan: int
    is_split: bool

    @property
    def is_turbo(self) -> bool:
        """Whether libjpeg-turbo decodes this to gray, RGB and BGR at any scale.

        This holds for gray or three components of 8 bits.
        """
        sampling = self.sampling
        is_usual = len(sampling) == 1 or sampling in _USUAL_SAMPLING
        return is_usual and self.precision == 8 and self.process in (0, 1, 2, 9, 10)

    @property
    def least_bytes(self) -> int:
        """Lower bound of the bytes that so many pixels take.

        A block of 64 samples takes at least 2 bits, or 1 bit if progressive; a sample takes 1 bit
        if lossless. Arithmetic coding takes as much for all but images of one color, which it
        compresses below any such bound.
        """
        side = 1 if self.process == 3 else 8
        largest_horizontal = max(factors >> 4 for factors in self.sampling)
        largest_vertical = max(factors & 15 for factors in self.sampling)
        units = 0
        for factors in self.sampling:
            columns = -(-self.width * (factors >> 4) // (largest_horizontal * side))
            rows = -(-self.height * (factors & 15) // (largest_vertical * side))
            units += columns * rows
        return units * (2 if self.process in (0, 1) else 1) // 8


def read_jpeg_header(data: bytes) -> JpegHeader | None:
    """Reads the segments of a JPEG up to its first scan.

    Returns:
        The header, or None if the segments end early or libjpeg would not accept them.
    """
    frame: tuple[int, int, int, int, tuple[int, ...]] | None = None
    exif = xmp = b''
    for marker, start, end in _segments(data):
        if marker == _APP1:
            if data.startswith(_EXIF, start):
                # Exif that is longer than a segment continues in the next.
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
    """Counts the scans of a JPEG that start before the end of the image."""
    # These bytes do not occur within coded data, and hardly in other segments, so the count is an
    # upper bound, and most files are done here.
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
    """Returns a JPEG with only those segments before its first scan that decoding needs.

    The other segments are the ones that libjpeg may raise warnings about.
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
    """Yields marker, start and end of the content of every segment, up to the first scan.

    Stops early at bytes that are not a segment.
    """
    place, size = 2, len(data)
    while place + 4 <= size:
        if data[place] != 0xFF:
            # libjpeg skips bytes between segments, with a warning.
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


def _frame(marker: int, content: bytes) -> tuple[int, int, int, int, tuple[int, ...]] | None:
    """Returns process, precision, height, width and sampling of a frame header."""
    if len(content) < 6 or len(content) < 6 + 3 * content[5] or not content[5]:
        return None
    sampling = tuple(content[7 : 6 + 3 * content[5] : 3])
    if not all(0 < factors >> 4 < 5 and 0 < factors & 15 < 5 for factors in sampling):
        return None
    height, width = content[1] << 8 | content[2], content[3] << 8 | content[4]
    return marker - 0xC0, content[0], height, width, sampling


def _orientation(exif: bytes, xmp: bytes) -> int:
    """Returns the orientation of the metadata, 1 without metadata."""
    return parse_orientation(exif, xmp) if exif or xmp else 1
