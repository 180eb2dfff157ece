"""Every kind of image file is decoded to the correct colors and orientation."""

import io

import numpy as np
import pytest
from mae_plugin.data.decoding.decode import EncodedImage
from PIL import Image, ImageOps

SIZE = (48, 32)  # width, height


def colors() -> Image.Image:
    """Red to green along the width, blue along the height: all corners differ."""
    x, y = np.meshgrid(np.linspace(0, 255, SIZE[0]), np.linspace(0, 255, SIZE[1]))
    return Image.fromarray(np.stack([255 - x, x, y], axis=-1).round().astype(np.uint8))


def noise() -> Image.Image:
    return Image.fromarray(np.random.default_rng(0).integers(0, 256, (120, 160, 3), dtype=np.uint8))


def encode(image: Image.Image, kind: str, **options) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def decoded(data: bytes, **options) -> np.ndarray:
    return EncodedImage(data, **options).pixels().astype(int)


def test_jpeg_is_pillows():
    """Within two levels of Pillow's libjpeg, whose interpolation of chroma differs slightly."""
    data = encode(colors(), 'JPEG', quality=95)
    reference = np.asarray(Image.open(io.BytesIO(data))).astype(int)
    assert np.abs(decoded(data, channel_order='rgb') - reference).max() <= 2
    assert np.array_equal(decoded(data)[..., ::-1], decoded(data, channel_order='rgb'))


@pytest.mark.parametrize('kind', ['PNG', 'BMP', 'TIFF', 'WebP', 'PPM', 'GIF'])
def test_kinds(kind):
    options = dict(lossless=True) if kind == 'WebP' else {}
    image = colors().quantize(256) if kind == 'GIF' else colors()
    out = decoded(encode(image, kind, **options), channel_order='rgb')
    assert np.array_equal(out, np.asarray(image.convert('RGB')))


def test_gray():
    gray = colors().convert('L')
    for data in (encode(gray, 'PNG'), encode(gray, 'JPEG', quality=100)):
        out = decoded(data)
        assert out.shape == (32, 48, 3) and (out == out[..., :1]).all()
        assert np.abs(out[..., 0] - np.asarray(gray).astype(int)).max() <= 1


def test_palette_and_alpha():
    palette = colors().quantize(32)
    assert np.array_equal(
        decoded(encode(palette, 'PNG'), channel_order='rgb'), np.asarray(palette.convert('RGB'))
    )
    transparent = colors()
    transparent.putalpha(Image.new('L', SIZE, 0))
    assert np.array_equal(
        decoded(encode(transparent, 'PNG'), channel_order='rgb'), np.asarray(colors())
    )
    both = colors().convert('LA')
    assert decoded(encode(both, 'PNG')).shape == (32, 48, 3)


def test_cmyk():
    """As in Pillow's conversion: white stays white, and pure cyan has no red."""
    image = Image.new('CMYK', SIZE, (0, 0, 0, 0))
    image.paste((255, 0, 0, 0), (0, 0, 24, 32))
    data = encode(image, 'JPEG', quality=100)
    out = decoded(data, channel_order='rgb')
    assert np.abs(out[16, 40] - 255).max() <= 2
    assert out[16, 8, 0] <= 2 and out[16, 8, 1] >= 253


@pytest.mark.parametrize('kind', ['PNG', 'TIFF'])
def test_16_bits(kind):
    """65,535 is white and 32,896 = 128 * 257 is 128; Pillow's own conversion makes both white."""
    gray = np.full((32, 48), 65535, dtype=np.uint16)
    gray[:, :24] = 128 * 257
    out = decoded(encode(Image.fromarray(gray), kind))
    assert (out[:, :24] == 128).all() and (out[:, 24:] == 255).all()


@pytest.mark.parametrize('before', [b'\xff\xda' * 9, b'\0' * 65000], ids=['like a scan', 'long'])
def test_rotation_behind_other_segments(before):
    """Color profiles and the like may precede the Exif, with any bytes and of any length."""
    exif = Image.Exif()
    exif[0x0112] = 6
    data = encode(colors(), 'JPEG', exif=exif)
    segment = b'\xff\xe2' + (len(before) + 2).to_bytes(2, 'big') + before
    behind = data[:2] + segment * 2 + data[2:]
    np.testing.assert_array_equal(EncodedImage(behind).pixels(), EncodedImage(data).pixels())
    assert EncodedImage(behind).size == colors().size


@pytest.mark.parametrize('orientation', range(1, 9))
@pytest.mark.parametrize('kind', ['JPEG', 'PNG', 'WebP', 'TIFF'])
def test_rotation(kind, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = encode(
        colors(), kind, exif=exif, **(dict(quality=95) if kind == 'JPEG' else dict(lossless=True))
    )
    image = EncodedImage(data, channel_order='rgb')
    expected = np.asarray(
        ImageOps.exif_transpose(Image.open(io.BytesIO(data))).convert('RGB')
    ).astype(int)
    out = image.pixels().astype(int)
    assert image.size == out.shape[:2] == expected.shape[:2]
    assert np.abs(out - expected).max() <= 2


def test_reduced_size():
    """An eighth of a 400 x 296 JPEG has the mean colors of its blocks of 8 x 8 pixels."""
    big = colors().resize((400, 296), Image.Resampling.BICUBIC)
    image = EncodedImage(encode(big, 'JPEG', quality=95), channel_order='rgb')
    whole = image.pixels().astype(float)
    for reduction in (2, 4, 8):
        small = image.pixels(reduction)
        assert small.shape == (296 // reduction, 400 // reduction, 3)
        blocks = whole.reshape(296 // reduction, reduction, 400 // reduction, reduction, 3).mean(
            axis=(1, 3)
        )
        assert np.abs(small - blocks).max() < 4
    assert EncodedImage(encode(big, 'PNG')).pixels(8).shape == (296, 400, 3)


def test_odd_sizes_reduced():
    image = EncodedImage(encode(colors().resize((401, 299)), 'JPEG'))
    assert image.pixels(8).shape == (38, 51, 3) and image.pixels(2).shape == (150, 201, 3)


def test_harmless_remarks_of_libjpeg_pass():
    """simplejpeg, unlike other readers, rejects bytes between segments, which cameras may write."""
    data = encode(colors(), 'JPEG', quality=95)
    odd = data[:-2] + b'\0\0\0' + data[-2:]
    assert np.array_equal(decoded(odd), decoded(data))


@pytest.mark.parametrize(
    ('data', 'reason'),
    [
        (b'', 'the file is empty'),
        (b'no image at all', 'in no known image format'),
        (encode(noise(), 'JPEG')[:-2000], 'truncated'),
        (encode(noise(), 'PNG')[:-2000], 'truncated'),
        (encode(noise(), 'JPEG')[:12], 'Truncated'),
        (encode(Image.fromarray(np.zeros((4, 4), dtype=np.float32)), 'TIFF'), 'floating-point'),
    ],
)
def test_what_cannot_be_read_raises(data, reason):
    with pytest.raises((ValueError, OSError, SyntaxError), match=reason):
        EncodedImage(data).pixels()


@pytest.mark.parametrize('kind', ['JPEG', 'PNG'])
def test_bombs_are_refused_before_decoding(kind, monkeypatch):
    data = encode(colors(), kind)
    monkeypatch.setattr(Image, 'MAX_IMAGE_PIXELS', 48 * 32 // 2 - 1)
    with pytest.raises((ValueError, Image.DecompressionBombError), match='1536|48 x 32'):
        EncodedImage(data)
    monkeypatch.setattr(Image, 'MAX_IMAGE_PIXELS', 48 * 32 // 2)
    EncodedImage(data).pixels()
