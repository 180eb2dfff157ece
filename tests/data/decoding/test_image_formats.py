"""Supported formats, limits on what headers claim, and orientation."""

import io
import struct
import subprocess
import zlib

import numpy as np
import pytest
import tifffile
from mae_plugin.data.decoding.decode import EncodedImage
from mae_plugin.data.decoding.image_formats import FORMATS
from mae_plugin.data.decoding.limits import check_size
from PIL import Image, ImageFile

POSTSCRIPT = b"""%!PS-Adobe-3.0 EPSF-3.0
%%BoundingBox: 0 0 48 32
%%EndComments
0 0 48 32 rectfill
showpage
%%EOF
"""


def encode(image: Image.Image, kind: str, **options) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


@pytest.mark.parametrize('color_type', ['color', 'grayscale', 'unchanged'])
def test_postscript_starts_no_program(color_type, monkeypatch):
    """Pillow opened any format it supports, and runs Ghostscript for this one."""
    started = []
    monkeypatch.setattr(subprocess, 'check_call', lambda *args, **kwargs: started.append(args))
    monkeypatch.setattr('PIL.EpsImagePlugin.has_ghostscript', lambda: True)
    monkeypatch.setattr('PIL.EpsImagePlugin.gs_binary', 'gs')
    with pytest.raises(ValueError, match='no known image format'):
        EncodedImage(POSTSCRIPT, color_type=color_type)
    assert not started


def test_formats_hold_none_that_needs_a_program_or_another_file():
    assert {'JPEG', 'PNG', 'WEBP', 'GIF', 'TIFF', 'BMP'} <= set(FORMATS)
    assert not {'EPS', 'WMF', 'FPX', 'MIC', 'BUFR', 'GRIB', 'HDF5', 'IPTC', 'MPEG'} & set(FORMATS)


def test_check_size(monkeypatch):
    monkeypatch.setattr(Image, 'MAX_IMAGE_PIXELS', 500)
    check_size(40, 25)
    check_size(20, 25, bands=4, itemsize=2)
    with pytest.raises(ValueError, match='25 x 41 pixels are more than the 1000'):
        check_size(41, 25)
    with pytest.raises(ValueError, match='9 bands of 2 bytes take 9000 bytes, more than the 4000'):
        check_size(20, 25, bands=9, itemsize=2)
    for sides in ((0, 5), (5, 0), (5, 5, 0)):
        with pytest.raises(ValueError, match='is empty'):
            check_size(*sides)
    monkeypatch.setattr(Image, 'MAX_IMAGE_PIXELS', None)
    check_size(10**6, 10**6)


@pytest.mark.parametrize('kind', ['PNG', 'WebP', 'JPEG'])
def test_broken_exif_means_no_rotation(kind):
    """The whole image was rejected, which Pillow and OpenCV read."""
    pixels = np.random.default_rng(0).integers(0, 256, (32, 48, 3), dtype=np.uint8)
    options = dict(lossless=True) if kind == 'WebP' else {}
    whole = encode(Image.fromarray(pixels), kind, **options)
    # Big-endian TIFF structures: an offset beyond the end, a count beyond the end, and no TIFF.
    for exif in (
        b'MM\0*\xff\xff\xff\xff',
        b'MM\0*\0\0\0\x08\x00\x05\x01\x12',
        b'\x13\x37' * 9,
        b'',
    ):
        data = encode(Image.fromarray(pixels), kind, exif=b'Exif\0\0' + exif, **options)
        assert b'MM\0*' not in exif or exif in data
        image = EncodedImage(data)
        assert image.size == (32, 48)
        np.testing.assert_array_equal(image.pixels(), EncodedImage(whole).pixels())


def npy(array: np.ndarray) -> bytes:
    file = io.BytesIO()
    np.save(file, array)
    return file.getvalue()


def npy_header(text: str) -> bytes:
    """Returns a ``.npy`` file of only a header."""
    text = text + '\n'
    return b'\x93NUMPY\x01\0' + struct.pack('<H', len(text)) + text.encode('latin1')


@pytest.mark.parametrize(
    ('data', 'reason'),
    [
        (npy(np.zeros((32, 48, 0), np.uint8)), 'is empty'),
        (npy(np.zeros((0, 48, 3), np.uint8)), 'is empty'),
        (npy(np.zeros((32, 0), np.float32)), 'is empty'),
        (npy_header("{'descr': '|O', 'fortran_order': False, 'shape': (2, 2)}"), 'Python objects'),
        (
            npy_header("{'descr': '<f8', 'fortran_order': False, 'shape': (9000, 9000)}"),
            'takes 648000000 bytes',
        ),
        (
            npy_header("{'descr': '<f8', 'fortran_order': False, 'shape': (90000, 9000, 3)}"),
            'more than the',
        ),
        (npy_header("{'descr': '<f8', 'fortran_order': False, 'shape': (-2, -2)}"), 'is empty'),
        (
            npy_header(
                "{'descr': '|u1', 'fortran_order': False, 'shape': (2, 2)" + ' ' * 20000 + '}'
            ),
            'large',
        ),
    ],
)
def test_arrays_that_are_no_images(data, reason):
    """Arrays without bands or rows were returned as images; a header allocated all it claims."""
    with pytest.raises(ValueError, match=reason):
        EncodedImage(data, color_type='unchanged')


def test_arrays_in_fortran_order_come_out_as_they_are():
    pixels = np.random.default_rng(0).integers(0, 999, (32, 48, 5)).astype(np.uint16)
    out = EncodedImage(npy(np.asfortranarray(pixels)), color_type='unchanged').pixels()
    np.testing.assert_array_equal(out, pixels)
    assert out.flags.c_contiguous and out.flags.writeable


def test_integers_of_32_bits_in_color():
    """Values of 0 to 255 were nearly black, as if white were 65,535; beyond, white is unknown."""
    values = np.random.default_rng(0).integers(0, 256, (32, 48)).astype(np.int32)
    out = EncodedImage(encode(Image.fromarray(values), 'TIFF')).pixels()
    np.testing.assert_array_equal(out, np.repeat(values[..., None], 3, axis=-1))
    for beyond in (256, -1):
        values[0, 0] = beyond
        with pytest.raises(
            ValueError, match='integers of 32 bits .* whose black and white are unknown'
        ):
            EncodedImage(encode(Image.fromarray(values), 'TIFF'))
    # PGM of more than 8 bits defines white.
    deep = b'P5 2 1 1023\n' + struct.pack('>HH', 1023, 512)
    np.testing.assert_array_equal(
        EncodedImage(deep).pixels()[0, :, 0], [255, round(512 / 1023 * 255)]
    )


def png_header(width: int, height: int, bits: int, color: int) -> bytes:
    """Returns a PNG file of a header and a few bytes of pixels, with valid checksums."""
    chunks = (
        (b'IHDR', struct.pack('>IIBBBBB', width, height, bits, color, 0, 0, 0)),
        (b'IDAT', b'x\x9c\x63'),
    )
    parts = [
        struct.pack('>I', len(body)) + kind + body + struct.pack('>I', zlib.crc32(kind + body))
        for kind, body in chunks
    ]
    return b'\x89PNG\r\n\x1a\n' + b''.join(parts)


def webp_header(width: int, height: int) -> bytes:
    bits = (width - 1) | (height - 1) << 14
    body = b'VP8L' + struct.pack('<IBI', 20, 0x2F, bits) + bytes(15)
    return b'RIFF' + struct.pack('<I', len(body) + 4) + b'WEBP' + body


GIF_HEADER = (
    b'GIF89a'
    + struct.pack('<HH', 20000, 8000)
    + b'\0\0\0,'
    + struct.pack('<HHHH', 0, 0, 20000, 8000)
)
ICON = struct.pack('<HHHBBBBHHII', 0, 1, 1, 16, 16, 0, 0, 1, 24, 90, 22)
HUGE = {
    'png': png_header(13000, 13000, 8, 6),
    'deep png': png_header(13000, 13000, 16, 0),
    'gif': GIF_HEADER + b'\0\x08\x02\0\x01\0;',
    'webp': webp_header(13000, 13000),
    'bmp': b'BM'
    + struct.pack('<IIIIiiHHIIIIII', 90, 0, 54, 40, 13000, 13000, 1, 24, 0, 0, 0, 0, 0, 0)
    + bytes(36),
    'ico of png': ICON + png_header(13000, 13000, 8, 6),
    'ico of bmp': ICON
    + struct.pack('<IiiHHIIIIII', 40, 13000, 26000, 1, 24, 0, 0, 0, 0, 0, 0)
    + bytes(36),
    'tga': struct.pack('<BBBHHBHHHHBB', 0, 0, 10, 0, 0, 0, 0, 0, 13000, 13000, 24, 0)
    + b'\x83\1\2\3' * 9,
    'ppm': b'P6 13000 13000 255\n' + bytes(50),
}


@pytest.mark.parametrize('color_type', ['color', 'unchanged'])
@pytest.mark.parametrize('kind', HUGE)
def test_headers_that_claim_more_than_the_file_can_hold(kind, color_type, monkeypatch):
    """A damaged PNG of 46 bytes took 2.0 GB, a GIF of 35 bytes 1.9 GB."""
    monkeypatch.setattr(
        ImageFile.ImageFile, 'load', lambda image: pytest.fail('the pixels were asked for')
    )
    with pytest.raises(ValueError, match='which take at least'):
        EncodedImage(HUGE[kind], color_type=color_type)


@pytest.mark.parametrize('kind', ['PNG', 'GIF', 'WebP', 'TIFF', 'AVIF', 'JPEG'])
def test_large_images_of_one_color_are_plausible(kind):
    """Valid images with the best compression are read."""
    options = (
        dict(compression='tiff_lzw')
        if kind == 'TIFF'
        else dict(lossless=True)
        if kind == 'WebP'
        else {}
    )
    data = encode(
        Image.new('L' if kind in ('GIF', 'PNG') else 'RGB', (3000, 2000), 'white'), kind, **options
    )
    assert (EncodedImage(data).pixels() >= 254).all()


def test_deep_pictures_keep_to_the_limit_unchanged(monkeypatch):
    """A gray PNG of 16 bits was decoded at any size; the same file in color was rejected."""
    data = encode(Image.fromarray(np.zeros((32, 48), np.uint16)), 'PNG')
    monkeypatch.setattr(Image, 'MAX_IMAGE_PIXELS', 32 * 48 // 2 - 1)
    for color_type in ('color', 'unchanged'):
        with pytest.raises(ValueError, match='48 x 32 pixels are more than|1536 pixels'):
            EncodedImage(data, color_type=color_type)


def test_pages_count_for_the_limit(monkeypatch):
    """Hundreds of pages of a small TIFF file took 6 GB."""
    file = io.BytesIO()
    tifffile.imwrite(
        file, np.zeros((30, 40, 50), np.uint8), photometric='minisblack', compression='zlib'
    )
    monkeypatch.setattr(Image, 'MAX_IMAGE_PIXELS', 40 * 50)
    with pytest.raises(ValueError, match='30 bands .* take 60000 bytes, more than the 16000|page'):
        EncodedImage(file.getvalue(), color_type='unchanged')


@pytest.mark.parametrize('kind', ['PNG', 'GIF', 'WebP', 'BMP', 'TIFF', 'PPM', 'AVIF'])
def test_files_that_end_early_are_broken(kind):
    """A file cut at any length gives an error, or the whole image if only its end is missing."""
    pixels = np.random.default_rng(0).integers(0, 256, (32, 48, 3), dtype=np.uint8)
    data = encode(Image.fromarray(pixels), kind)
    whole = EncodedImage(data).pixels()
    for length in [*range(1, 80, 7), *np.linspace(80, len(data) - 1, 25).astype(int)]:
        try:
            out = EncodedImage(data[:length]).pixels()
        except ValueError:
            continue
        np.testing.assert_array_equal(out, whole)
