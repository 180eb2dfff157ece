"""Which formats are opened, what their headers may claim, and which way up images come out."""

import io
import struct
import subprocess

import numpy as np
import pytest
from mae_plugin.data.decode import EncodedImage
from mae_plugin.data.formats import FORMATS
from mae_plugin.data.limits import check_size
from PIL import Image

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
    """Pillow was asked for any format it knows, and starts Ghostscript for this one."""
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
    """The whole image was refused, which Pillow and OpenCV read."""
    pixels = np.random.default_rng(0).integers(0, 256, (32, 48, 3), dtype=np.uint8)
    options = dict(lossless=True) if kind == 'WebP' else {}
    whole = encode(Image.fromarray(pixels), kind, **options)
    # Big-endian TIFF structures: an offset behind the end, a count behind the end, and no TIFF at all.
    for exif in (b'MM\0*\xff\xff\xff\xff', b'MM\0*\0\0\0\x08\x00\x05\x01\x12', b'\x13\x37' * 9, b''):
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
    """A ``.npy`` file of a header alone."""
    text = text + '\n'
    return b'\x93NUMPY\x01\0' + struct.pack('<H', len(text)) + text.encode('latin1')
