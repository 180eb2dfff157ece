"""The table of docs/any-image.md: the result of ``color_type='unchanged'`` for each format."""

import re
import struct
import sys
import zlib
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from mae_plugin.data.decoding.bands import read_bands
from mae_plugin.data.decoding.decode import EncodedImage
from mae_plugin.data.sources.entries import IMAGE_EXTENSIONS
from PIL import Image

HEIGHT, WIDTH = 12, 16
RANDOM = np.random.default_rng(0)
COLORS = RANDOM.integers(0, 256, (HEIGHT, WIDTH, 4), dtype=np.uint8)
DEEP = RANDOM.integers(0, 65536, (HEIGHT, WIDTH, 4), dtype=np.uint16)
INDEX = RANDOM.integers(0, 16, (HEIGHT, WIDTH), dtype=np.uint8)
TABLE = RANDOM.integers(0, 256, (16, 3), dtype=np.uint8)


def encode(image: Image.Image, kind: str, **options) -> bytes:
    file = BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def png(
    pixels: np.ndarray, kind: int, bits: int, chunks: tuple[tuple[bytes, bytes], ...] = ()
) -> bytes:
    """Returns a PNG file of samples (H, W, C) with a color type, and chunks before the pixels."""
    places = np.arange(bits)[::-1]
    rows = np.packbits(
        (pixels[..., None].astype(int) >> places & 1).reshape(len(pixels), -1).astype(np.uint8),
        axis=1,
    )
    header = struct.pack('>IIBBBBB', pixels.shape[1], pixels.shape[0], bits, kind, 0, 0, 0)
    content = zlib.compress(np.pad(rows, ((0, 0), (1, 0))).tobytes())
    chunks = ((b'IHDR', header), *chunks, (b'IDAT', content), (b'IEND', b''))
    parts = (
        struct.pack('>I', len(b)) + k + b + struct.pack('>I', zlib.crc32(k + b)) for k, b in chunks
    )
    return b'\x89PNG\r\n\x1a\n' + b''.join(parts)


def paletted(*options) -> Image.Image:
    image = Image.fromarray(INDEX, 'P')
    image.putpalette(TABLE.ravel().tolist())
    return image


def with_alpha() -> np.ndarray:
    return np.concatenate([TABLE[INDEX], np.where(INDEX == 3, 0, 255)[..., None]], -1).astype(
        np.uint8
    )


PALETTE_CHUNK = b'PLTE', TABLE.tobytes()
ALPHA_CHUNK = b'tRNS', b'\xff\xff\xff\x00'
BITS = (COLORS[..., :1] > 127).astype(np.uint8)

CASES = {
    'PNG, gray of 1 bit': (png(BITS, 0, 1), BITS * 255),
    'PNG, gray of 2 bits': (png(COLORS[..., :1] >> 6, 0, 2), (COLORS[..., :1] >> 6) * 85),
    'PNG, gray of 4 bits': (png(INDEX[..., None], 0, 4), INDEX[..., None] * 17),
    'PNG, gray of 8 bits': (png(COLORS[..., :1], 0, 8), COLORS[..., :1]),
    'PNG, gray of 16 bits': (png(DEEP[..., :1], 0, 16), DEEP[..., :1]),
    'PNG, gray with alpha of 8 bits': (png(COLORS[..., :2], 4, 8), COLORS[..., :2]),
    # OpenCV returned four channels.
    'PNG, gray with alpha of 16 bits': (png(DEEP[..., :2], 4, 16), DEEP[..., :2]),
    'PNG, RGB of 8 bits': (png(COLORS[..., :3], 2, 8), COLORS[..., :3]),
    'PNG, RGB of 16 bits': (png(DEEP[..., :3], 2, 16), DEEP[..., :3]),
    'PNG, RGBA of 8 bits': (png(COLORS, 6, 8), COLORS),
    'PNG, RGBA of 16 bits': (png(DEEP, 6, 16), DEEP),
    'PNG, gray of 8 bits, one value transparent': (
        png(COLORS[..., :1], 0, 8, ((b'tRNS', b'\0\7'),)),
        COLORS[..., :1],
    ),
    'PNG, gray of 16 bits, one value transparent': (
        png(DEEP[..., :1], 0, 16, ((b'tRNS', b'\0\7'),)),
        DEEP[..., :1],
    ),
    'PNG, RGB of 8 bits, one color transparent': (
        png(COLORS[..., :3], 2, 8, ((b'tRNS', b'\0\7' * 3),)),
        COLORS[..., :3],
    ),
    # OpenCV returned four channels.
    'PNG, RGB of 16 bits, one color transparent': (
        png(DEEP[..., :3], 2, 16, ((b'tRNS', b'\0\7' * 3),)),
        DEEP[..., :3],
    ),
    'PNG, palette': (png(INDEX[..., None], 3, 4, (PALETTE_CHUNK,)), TABLE[INDEX]),
    # The transparency was dropped.
    'PNG, palette with transparent colors': (
        png(INDEX[..., None], 3, 8, (PALETTE_CHUNK, ALPHA_CHUNK)),
        with_alpha(),
    ),
    'GIF': (encode(paletted(), 'GIF'), TABLE[INDEX]),
    'GIF, transparent color': (encode(paletted(), 'GIF', transparency=3), with_alpha()),
    'WebP, RGB': (encode(Image.fromarray(COLORS[..., :3]), 'WEBP', lossless=True), COLORS[..., :3]),
    'WebP, RGBA': (encode(Image.fromarray(COLORS), 'WEBP', lossless=True, exact=True), COLORS),
    'BMP, palette': (encode(paletted(), 'BMP'), TABLE[INDEX]),
    'BMP, 1 bit': (encode(Image.fromarray(BITS[..., 0] > 0), 'BMP'), BITS * 255),
}


@pytest.mark.parametrize('name', CASES)
def test_unchanged(name):
    data, expected = CASES[name]
    got = EncodedImage(data, color_type='unchanged').pixels()
    assert (got.shape, got.dtype) == (expected.shape, expected.dtype)
    np.testing.assert_array_equal(got, expected)


def test_table_in_the_docs_names_every_case():
    page = (Path(__file__).parents[3] / 'docs' / 'any-image.md').read_text()
    rows = re.findall(r'^\| ([^|]+?) +\| (\d) +\| (\w+)', page, re.MULTILINE)
    documented = {name: (int(channels), kind) for name, channels, kind in rows}
    for name, (_, expected) in CASES.items():
        assert documented[name] == (expected.shape[2], str(expected.dtype)), name


@pytest.mark.parametrize('orientation', range(1, 9))
@pytest.mark.parametrize('kind', ['eXIf', 'iTXt'])
def test_orientation_of_deep_png(orientation, kind):
    """The orientation was ignored at 16 bits."""
    seen = DEEP[..., :3]
    stored = {2: seen[:, ::-1], 3: seen[::-1, ::-1], 4: seen[::-1]}.get(orientation, seen)
    if orientation > 4:
        stored = seen.swapaxes(0, 1)
        stored = {6: stored[::-1], 7: stored[::-1, ::-1], 8: stored[:, ::-1]}.get(
            orientation, stored
        )
    exif = Image.Exif()
    exif[274] = orientation
    xmp = b'XML:com.adobe.xmp\0\0\0\0\0<x tiff:Orientation="%d"/>' % orientation
    chunk = {'eXIf': (b'eXIf', exif.tobytes().removeprefix(b'Exif\0\0')), 'iTXt': (b'iTXt', xmp)}[
        kind
    ]
    np.testing.assert_array_equal(read_bands(png(stored, 2, 16, (chunk,))), seen)


def test_damaged_deep_png_is_refused():
    data = png(DEEP, 6, 16)
    for damaged in (data[: len(data) // 2], data[:-30], data[:60] + bytes(9) + data[69:]):
        with pytest.raises(ValueError, match='PNG file is damaged'):
            read_bands(damaged)


def test_frames():
    """The first frame is taken, or the one of ``page``."""
    frames = [Image.fromarray(np.full((8, 8, 3), value, np.uint8)) for value in (10, 200)]
    data = encode(frames[0], 'WEBP', save_all=True, append_images=frames[1:], lossless=True)
    for color_type in ('color', 'unchanged'):
        for page, value in ((None, 10), (0, 10), (1, 200)):
            assert (EncodedImage(data, color_type=color_type, page=page).pixels() == value).all()
        for page in (2, -1, 'all'):
            with pytest.raises(
                ValueError, match=rf"page='?{page}'? does not exist: the file holds 2 images"
            ):
                EncodedImage(data, color_type=color_type, page=page)
    for single in (encode(frames[0], 'JPEG'), png(DEEP, 6, 16), encode(frames[0], 'PNG')):
        assert EncodedImage(single, color_type='unchanged', page=0).size in (
            (8, 8),
            (HEIGHT, WIDTH),
        )
        with pytest.raises(ValueError, match='page=1 does not exist'):
            EncodedImage(single, color_type='unchanged', page=1)


def test_heic():
    """Photographs of phones were rejected without a hint on how to read them."""
    heif = pytest.importorskip('pillow_heif')
    heif.register_heif_opener()
    pixels = np.full((48, 64, 3), (200, 90, 30), np.uint8)
    pixels[:24, :32] = 250, 250, 10
    exif = Image.Exif()
    exif[274] = 6
    for options, seen in (({}, pixels), (dict(exif=exif.tobytes()), np.rot90(pixels, -1))):
        data = encode(Image.fromarray(pixels), 'HEIF', quality=-1, **options)
        for color_type in ('color', 'unchanged'):
            image = EncodedImage(data, 'rgb', color_type)
            assert image.size == seen.shape[:2]
            assert np.abs(image.pixels().astype(int) - seen).max() <= 3
    file = BytesIO()
    heif.from_bytes('RGB;16', (64, 48), (pixels.astype(np.uint16) * 257).tobytes()).save(
        file, quality=-1
    )
    deep = read_bands(file.getvalue())
    assert deep.dtype == np.uint16 and np.abs(deep / 257 - pixels).max() <= 2
    assert np.abs(EncodedImage(file.getvalue(), 'rgb').pixels().astype(int) - pixels).max() <= 3
    assert {'.heic', '.heif', '.avif'} <= set(IMAGE_EXTENSIONS)


@pytest.mark.parametrize('color_type', ['color', 'grayscale', 'unchanged'])
def test_heic_without_its_package(color_type, monkeypatch):
    monkeypatch.setitem(sys.modules, 'pillow_heif', None)
    for brand in (b'heic', b'mif1'):
        data = b'\0\0\0\x18ftyp' + brand + b'\0\0\0\0mif1heic' + bytes(99)
        with pytest.raises(
            ValueError, match='HEIC or HEIF, which needs another package: pip install pillow-heif'
        ):
            EncodedImage(data, color_type=color_type)


def test_avif_is_left_to_pillow(monkeypatch):
    monkeypatch.setitem(sys.modules, 'pillow_heif', None)
    pixels = np.full((32, 32, 3), (200, 90, 30), np.uint8)
    got = EncodedImage(encode(Image.fromarray(pixels), 'AVIF', quality=100), 'rgb').pixels()
    assert np.abs(got.astype(int) - pixels).max() <= 3
