"""JPEG files of every process, detected by their headers: decoded or rejected."""

import io

import numpy as np
import pytest
from mae_plugin.data.decoding.decode import EncodedImage
from mae_plugin.data.decoding.jpeg_header import MAX_SCANS, read_jpeg_header
from PIL import Image, ImageOps

from .jpegs import frame_start, lossless, scan_start, segment, with_frame

SIZE = (48, 32)  # width, height
NOISE = np.random.default_rng(0).integers(0, 256, (32, 48, 3), dtype=np.uint8)


def jpeg(image: Image.Image | None = None, **options) -> bytes:
    file = io.BytesIO()
    (Image.fromarray(NOISE) if image is None else image).save(file, 'JPEG', **options)
    return file.getvalue()


@pytest.mark.parametrize('channels', [1, 3, 4])
@pytest.mark.parametrize('reduction', [1, 8])
def test_lossless_jpeg(channels, reduction):
    """libjpeg does not scale it: reduced to 1/8, it wrote beyond the buffer and crashed."""
    pixels = np.random.default_rng(0).integers(0, 256, (40, 56, channels), dtype=np.uint8)
    data = lossless(pixels)
    out = EncodedImage(data, color_type='unchanged').pixels(reduction)
    if channels < 4:
        np.testing.assert_array_equal(out, pixels)
        color = EncodedImage(data, 'rgb').pixels(reduction)
        np.testing.assert_array_equal(color, np.broadcast_to(pixels, (40, 56, 3)))
    assert out.shape == (40, 56, channels)
    assert EncodedImage(data, color_type='grayscale').pixels(reduction).shape == (40, 56, 1)


@pytest.mark.parametrize('process', [5, 6, 7, 11, 13, 14, 15])
def test_hierarchical_jpeg_is_refused(process):
    with pytest.raises(
        ValueError, match=f'SOF{process}, such as hierarchical ones, has no decoder'
    ):
        EncodedImage(with_frame(jpeg(), process))


@pytest.mark.parametrize(('process', 'precision'), [(1, 12), (0, 7), (3, 16), (3, 2)])
def test_jpeg_of_other_bits_is_refused(process, precision):
    with pytest.raises(ValueError, match=f'of {precision} bits per sample has no decoder'):
        EncodedImage(with_frame(jpeg(), process, precision))


@pytest.mark.parametrize('process', [9, 10])
def test_arithmetic_coding_takes_any_bytes(process):
    """The bytes are not Huffman-coded data of these processes: an image or an error, no crash."""
    data = with_frame(jpeg(progressive=process == 10), process)
    for reduction in (1, 2, 8):
        try:
            out = EncodedImage(data).pixels(reduction)
        except ValueError:
            continue
        assert out.shape == (32 // reduction, 48 // reduction, 3) or out.shape == (32, 48, 3)


@pytest.mark.parametrize('progressive', [False, True])
def test_size_that_the_bytes_cannot_hold(progressive):
    """13,000 x 13,000 pixels in a few bytes took 30 s and 2.6 GB, and were returned as an image."""
    for mode in ('RGB', 'L', 'CMYK'):
        data = with_frame(
            jpeg(Image.fromarray(NOISE).convert(mode), progressive=progressive), size=(13000, 13000)
        )
        with pytest.raises(
            ValueError, match='13000 x 13000 pixels, which take at least [0-9]+ bytes'
        ):
            EncodedImage(data)
    with pytest.raises(ValueError, match='is empty'):
        EncodedImage(with_frame(jpeg(), size=(0, 48)))


@pytest.mark.parametrize('mode', ['L', 'RGB', 'CMYK'])
@pytest.mark.parametrize('progressive', [False, True])
def test_one_color_takes_more_than_the_least_bytes(mode, progressive):
    """The bound is below the output of all encoders."""
    data = jpeg(Image.new(mode, (2003, 1001)), optimize=True, progressive=progressive)
    header = read_jpeg_header(data)
    assert len(data) // 8 < header.least_bytes < len(data)
    assert EncodedImage(data).pixels().shape == (1001, 2003, 3)


@pytest.mark.parametrize(
    'options', [{}, dict(progressive=True), dict(restart_marker_blocks=2)], ids=str
)
@pytest.mark.parametrize('color_type', ['color', 'grayscale', 'unchanged'])
@pytest.mark.parametrize('end', [b'', b'\xff\xd9'])
def test_jpeg_that_ends_early_is_broken(options, color_type, end):
    """libjpeg fills the rest with gray; with an end of image after the cut, Pillow accepts it."""
    data = jpeg(**options)
    for share in (0.05, 0.3, 0.6, 0.9):
        start = scan_start(data)
        cut = data[: start + int((len(data) - start) * share)] + end
        for reduction in (1, 4):
            with pytest.raises(ValueError, match='truncated'):
                EncodedImage(cut, color_type=color_type).pixels(reduction)


def test_warnings_of_metadata_do_not_hide_an_early_end():
    """libjpeg reports only its first warning."""
    data = jpeg()
    odd = data[:2] + segment(0xE0, b'JFIF\0\x07\x07\0\0\1\0\1\0\0') + b'\0\0\0' + data[2 + 18 :]
    np.testing.assert_array_equal(EncodedImage(odd).pixels(), EncodedImage(data).pixels())
    cut = odd[: (scan_start(odd) + len(odd)) // 2] + b'\xff\xd9'
    with pytest.raises(ValueError, match='truncated'):
        EncodedImage(cut).pixels()


def test_scans_without_end_are_refused():
    """The decoder passes over all blocks of the image for each scan."""
    data = jpeg(progressive=True)
    last = data.rindex(b'\xff\xda')
    scan = data[last:-2]
    few = data[:-2] + scan * 5 + data[-2:]
    assert EncodedImage(few).pixels().shape == (32, 48, 3)
    with pytest.raises(ValueError, match=f'scans is refused: .* {MAX_SCANS} are allowed'):
        EncodedImage(data[:-2] + scan * 2 * MAX_SCANS + data[-2:])
    # Bytes after the end of the image do not belong to it, as in motion photographs.
    assert EncodedImage(data + scan * 2 * MAX_SCANS).pixels().shape == (32, 48, 3)


@pytest.mark.parametrize('orientation', range(1, 9))
def test_orientation_in_xmp_alone(orientation):
    """XMP without Exif was ignored."""
    packet = f'<x:xmpmeta><rdf:Description tiff:Orientation="{orientation}"/></x:xmpmeta>'.encode()
    data = jpeg(Image.fromarray(NOISE).resize((64, 40)), quality=95, xmp=packet)
    assert read_jpeg_header(data).orientation == orientation
    image = EncodedImage(data, 'rgb')
    expected = np.asarray(ImageOps.exif_transpose(Image.open(io.BytesIO(data)))).astype(int)
    assert image.size == expected.shape[:2]
    assert np.abs(image.pixels().astype(int) - expected).max() <= 3


def test_exif_goes_before_xmp():
    exif = Image.Exif()
    exif[0x0112] = 6
    packet = b'<rdf:Description tiff:Orientation="3"/>'
    assert read_jpeg_header(jpeg(exif=exif, xmp=packet)).orientation == 6
    # Damaged Exif is ignored.
    assert (
        read_jpeg_header(jpeg(exif=b'Exif\0\0MM\0*\xff\xff\xff\xff', xmp=packet)).orientation == 3
    )
    exif[0x0112] = 9
    assert read_jpeg_header(jpeg(exif=exif)).orientation == 1


def test_header_is_found_as_libjpeg_finds_it():
    """Fill bytes, bytes between segments, restart markers and thumbnails do not hide the frame."""
    data = jpeg(progressive=True)
    thumbnail = segment(0xE2, with_frame(jpeg(), 3, size=(9, 9))[:600])
    for inserted in (
        b'\xff\xff\xff',
        b'\0\x07',
        b'\xff\xd3',
        b'\xff\0',
        thumbnail,
        segment(0xFE, b''),
    ):
        place = frame_start(data)
        odd = data[:place] + inserted + data[place:]
        header = read_jpeg_header(odd)
        assert (header.process, header.height, header.width) == (2, 32, 48), inserted
        assert header.sampling == (0x22, 0x11, 0x11) and not header.is_split
        np.testing.assert_array_equal(EncodedImage(odd).pixels(), EncodedImage(data).pixels())
    assert read_jpeg_header(data[: frame_start(data)]) is None
    # libjpeg rejects a second frame header.
    frame = data[frame_start(data) : frame_start(data) + 19]
    assert read_jpeg_header(data[: frame_start(data)] + frame + data[frame_start(data) :]) is None
