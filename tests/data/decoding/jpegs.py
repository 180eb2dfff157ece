"""Builds JPEG files that common encoders do not write: lossless ones, other headers."""

from __future__ import annotations

import struct

import numpy as np

_FRAMES = (0xC0, 0xC1, 0xC2, 0xC3, 0xC9, 0xCA)


def lossless(pixels: np.ndarray, predictor: int = 1) -> bytes:
    """Encodes (H, W, C) uint8 as a lossless JPEG (SOF3), predicted from the left neighbor."""
    height, width, channels = pixels.shape
    ids = b'RGBA'[:channels] if channels > 1 else b'\1'
    frame = struct.pack('>BHHB', 8, height, width, channels) + b''.join(
        bytes((name, 0x11, 0)) for name in ids
    )
    # 17 categories of differences, with a code of 5 bits each.
    table = bytes((0, 0, 0, 0, 0, 17, *[0] * 11, *range(17)))
    scan = (
        bytes((channels,)) + b''.join(bytes((name, 0)) for name in ids) + bytes((predictor, 0, 0))
    )
    bits = []
    values = pixels.astype(int)
    for row in range(height):
        for column in range(width):
            for channel in range(channels):
                left = (
                    values[row, column - 1, channel]
                    if column
                    else values[row - 1, 0, channel]
                    if row
                    else 128
                )
                difference = int(values[row, column, channel] - left)
                category = abs(difference).bit_length()
                bits.append(f'{category:05b}')
                if category:
                    low = difference if difference > 0 else difference + (1 << category) - 1
                    bits.append(f'{low:0{category}b}')
    text = ''.join(bits)
    text += '1' * (-len(text) % 8)
    coded = int(text, 2).to_bytes(len(text) // 8, 'big').replace(b'\xff', b'\xff\0')
    # Adobe's segment with transform 0: components are not converted.
    adobe = segment(0xEE, b'Adobe\0\x64\0\0\0\0\0')
    head = adobe + segment(0xC3, frame) + segment(0xC4, table) + segment(0xDA, scan)
    return b'\xff\xd8' + head + coded + b'\xff\xd9'


def segment(marker: int, content: bytes) -> bytes:
    """Returns a segment of a JPEG with its marker and length."""
    return bytes((0xFF, marker)) + struct.pack('>H', len(content) + 2) + content


def frame_start(data: bytes) -> int:
    """Returns the start of the frame header (SOF) of a JPEG without a thumbnail."""
    return next(
        place for place in range(len(data)) if data[place] == 0xFF and data[place + 1] in _FRAMES
    )


def with_frame(
    data: bytes,
    process: int | None = None,
    precision: int | None = None,
    size: tuple[int, int] | None = None,
) -> bytes:
    """Returns the same JPEG with another process (0 to 15), precision or size in its header."""
    start, data = frame_start(data), bytearray(data)
    if process is not None:
        data[start + 1] = 0xC0 + process
    if precision is not None:
        data[start + 4] = precision
    if size is not None:
        data[start + 5 : start + 9] = struct.pack('>HH', *size)
    return bytes(data)


def scan_start(data: bytes) -> int:
    """Returns the start of the coded data of the first scan."""
    start = data.index(b'\xff\xda', frame_start(data))
    return start + 2 + int.from_bytes(data[start + 2 : start + 4], 'big')
