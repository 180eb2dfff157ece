"""TIFF in all forms against pixels in closed form: GDAL's values unchanged, and 8-bit colors."""

import itertools
import zlib
from io import BytesIO

import numpy as np
import pytest
import tifffile
from mae_plugin.data.decoding import tiff as tiff_module
from mae_plugin.data.decoding.bands import read_bands
from mae_plugin.data.decoding.decode import EncodedImage
from mmpretrain.registry import TRANSFORMS
from PIL import Image

from .tiffs import LONG, RATIONAL, SHORT, basic_tags, build_tiff

HEIGHT, WIDTH = 37, 45


def ramp(
    dtype, channels: int = 1, largest: int | None = None, shape: tuple[int, int] = (HEIGHT, WIDTH)
) -> np.ndarray:
    """Returns values (H, W, C) that identify row, column and channel, over the type's range."""
    y, x, c = np.ogrid[: shape[0], : shape[1], :channels]
    index = (y * 7919 + x * 104729 + c * 1299709) % 65521
    if np.dtype(dtype).kind == 'f':
        return ((index - 30000) / 64).astype(dtype)
    limits = np.iinfo(dtype)
    least, largest = (int(limits.min), int(limits.max)) if largest is None else (0, largest)
    index = index.astype(object)
    values = (
        index % (largest + 1 - least)
        if largest - least < 65521
        else index * ((largest - least) // 65520)
    )
    values = (least + values).astype(dtype)
    values[0, 0], values[-1, -1] = least, largest
    return values


def write(pixels: np.ndarray, **options) -> bytes:
    file = BytesIO()
    planar = 'separate' if options.get('planarconfig') == 'separate' else None
    tifffile.imwrite(file, pixels.transpose(2, 0, 1) if planar else pixels, **options)
    return file.getvalue()


def packed(pixels: np.ndarray, bits: int) -> bytes:
    """Packs samples as a bit stream, the highest bit first, each row padded to whole bytes."""
    places = np.arange(bits)[::-1]
    rows = (pixels[..., None].astype(np.uint32) >> places & 1).reshape(len(pixels), -1)
    return np.packbits(rows.astype(np.uint8), axis=1).tobytes()


def colors(data: bytes, **options) -> np.ndarray:
    return EncodedImage(data, 'rgb', **options).pixels()


def assert_same(got: np.ndarray, expected: np.ndarray, name: object = '') -> None:
    assert (got.shape, got.dtype) == (expected.shape, expected.dtype), name
    np.testing.assert_array_equal(got, expected, str(name))


@pytest.mark.parametrize('compression', [None, 'packbits', 'lzw', 'deflate', 'zstd', 'lerc'])
def test_compressions(compression):
    """LZW, the floating-point predictor and others were rejected for lack of a package."""
    kinds = [('contig', 3), ('separate', 4), ('contig', 13)]
    layouts = [{}, dict(tile=(16, 32)), dict(rowsperstrip=5, byteorder='>'), dict(bigtiff=True)]
    for dtype, layout in itertools.product(
        ['uint8', 'uint16', 'int16', 'float32', 'float64'], layouts
    ):
        if compression == 'lerc' and layout.get('byteorder') == '>':
            continue
        predictors = [False, True] if compression in ('lzw', 'deflate', 'zstd') else [False]
        for (planar, channels), predictor in zip(kinds, itertools.cycle(predictors)):
            pixels = ramp(dtype, channels)
            options = dict(
                photometric='minisblack',
                planarconfig=planar,
                compression=compression,
                predictor=predictor,
            )
            assert_same(
                read_bands(write(pixels, **options, **layout)),
                pixels,
                (dtype, layout, planar, predictor),
            )


@pytest.mark.parametrize('dtype', ['int8', 'uint32', 'int32', 'uint64', 'int64', 'float16'])
def test_number_types(dtype):
    for byteorder in '<>':
        got = read_bands(write(ramp(dtype), photometric='minisblack', byteorder=byteorder))
        assert_same(got, ramp(dtype).astype('float32' if dtype == 'float16' else dtype))
    with pytest.raises(
        ValueError, match="black and white are unknown; color_type='unchanged' keeps them"
    ):
        colors(write(ramp(dtype), photometric='minisblack'))


def test_small_integers_of_large_types_in_color():
    pixels = ramp('int32', largest=255)
    assert_same(
        colors(write(pixels, photometric='minisblack')),
        np.repeat(pixels, 3, axis=-1).astype(np.uint8),
    )


@pytest.mark.parametrize('bits', [1, 2, 3, 4, 5, 6, 7, 10, 12, 14])
@pytest.mark.parametrize('channels', [1, 3])
def test_packed_bits(bits, channels):
    """Packed samples are not scaled, as in GDAL; in color, the largest number of bits is white."""
    dtype, white = np.uint8 if bits < 8 else np.uint16, 2**bits - 1
    pixels = ramp(dtype, channels, white)
    assert pixels.max() == white
    for byteorder in '<>':
        tags = basic_tags(HEIGHT, WIDTH, [bits] * channels, 2 if channels == 3 else 1)
        data = build_tiff([tags], [packed(pixels, bits)], byteorder)
        assert_same(read_bands(data), pixels)
        if bits < 8:
            expected = (pixels * (255 / white)).round()
        else:
            expected = pixels >> (bits - 8) if channels == 3 else (pixels * (255 / white)).round()
        assert_same(colors(data), np.broadcast_to(expected, (HEIGHT, WIDTH, 3)).astype(np.uint8))


@pytest.mark.parametrize('byteorder', ['<', '>'])
def test_24_bits(byteorder):
    """Integers of big-endian files were 256 times too large, and floats were rejected."""
    pixels = ramp(np.uint32, 3, 2**24 - 1)
    strip = packed(pixels, 24)
    if byteorder == '>':
        # GDAL reads them as a bit stream, the highest bit first, after libtiff has exchanged their
        # bytes.
        strip = np.frombuffer(strip, np.uint8).reshape(-1, 3)[:, ::-1].tobytes()
    data = build_tiff([basic_tags(HEIGHT, WIDTH, [24] * 3, 2)], [strip], byteorder)
    assert_same(read_bands(data), pixels)
    # Sign, 7 bits of exponent with a bias of 63, 16 bits of mantissa: 1.5 times powers of 2, and 0.
    values = [0, 0x3F8000, 0x408000, 0xBF8000]
    strip = b''.join(value.to_bytes(3, {'<': 'little', '>': 'big'}[byteorder]) for value in values)
    data = build_tiff([{**basic_tags(1, 4, [24], 1), 339: (SHORT, [3])}], [strip], byteorder)
    assert_same(read_bands(data), np.array([[[0], [1.5], [3], [-1.5]]], np.float32))


def test_alpha_and_extra_samples_are_kept():
    """Shapes differed from GDAL's for two samples, and for extra samples besides alpha."""
    for channels, photometric, extra in (
        (2, 'minisblack', ['unassalpha']),
        (2, 'minisblack', ['unspecified']),
        (4, 'rgb', ['assocalpha']),
        (4, 'rgb', ['unassalpha']),
        (5, 'rgb', ['unspecified', 'unassalpha']),
        (5, 'separated', ['unassalpha']),
    ):
        for dtype, planar in itertools.product(['uint8', 'uint16'], ['contig', 'separate']):
            pixels = ramp(dtype, channels)
            data = write(pixels, photometric=photometric, extrasamples=extra, planarconfig=planar)
            assert_same(read_bands(data), pixels, (channels, photometric, extra, dtype, planar))
            if photometric == 'rgb' and extra[0] != 'assocalpha':
                eight = pixels if dtype == 'uint8' else pixels >> 8
                assert_same(colors(data), eight[..., :3].astype(np.uint8))


def test_color_is_divided_by_associated_alpha():
    alpha = np.uint8([[255, 128, 51, 0]])
    true = np.uint8([[[200, 100, 50], [200, 100, 50], [250, 0, 100], [0, 0, 0]]])
    stored = np.ceil(true * (alpha[..., None] / 255)).astype(np.uint8)
    data = write(
        np.concatenate([stored, alpha[..., None]], -1),
        photometric='rgb',
        extrasamples=['assocalpha'],
    )
    assert np.abs(colors(data).astype(int) - true).max() <= 1
    with_more = colors(
        write(np.zeros((4, 4, 4), np.uint8), photometric='rgb', extrasamples=['assocalpha'])
    )
    assert not with_more.any()


@pytest.mark.parametrize('planar', ['contig', 'separate'])
@pytest.mark.parametrize('compression', [None, 'lzw'])
def test_deep_colors(planar, compression):
    """Uncompressed planes of 16 bits had wrong colors, off by up to 132."""
    pixels = ramp(np.uint16, 3)
    data = write(pixels, photometric='rgb', planarconfig=planar, compression=compression)
    assert_same(read_bands(data), pixels)
    assert_same(colors(data), (pixels >> 8).astype(np.uint8))
    luma = (pixels >> 8) @ [0.299, 0.587, 0.114]
    assert np.abs(colors(data, color_type='grayscale')[..., 0] - luma).max() < 1


@pytest.mark.parametrize('planar', ['contig', 'separate'])
@pytest.mark.parametrize('dtype', ['uint8', 'uint16'])
def test_inks(planar, dtype):
    """Unchanged keeps the four inks; color shows them on white paper, without a profile."""
    pixels = ramp(dtype, 4)
    data = write(pixels, photometric='separated', planarconfig=planar)
    assert_same(read_bands(data), pixels)
    light = 255 - (pixels if dtype == 'uint8' else pixels >> 8).astype(int)
    assert np.abs(colors(data) - light[..., :3] * light[..., 3:] / 255).max() <= 0.5


def test_palettes_become_colors():
    """Unchanged returned indices; maps with values of 8 bits were black in color."""
    table = (np.arange(256)[None] * [[3], [5], [7]] % 256).astype(np.uint8)
    index = ramp(np.uint8)[..., 0]
    expected = table.T[index]
    for deep in (
        table.astype(np.uint16) * 257,
        table.astype(np.uint16) * 256,
        table.astype(np.uint16),
    ):
        for layout in ({}, dict(compression='lzw', tile=(16, 16)), dict(byteorder='>')):
            data = write(index, photometric='palette', colormap=deep, **layout)
            assert_same(read_bands(data), expected)
            assert_same(colors(data), expected)
    four = ramp(np.uint8, largest=15)
    strip = packed(four, 4)
    tags = {
        **basic_tags(HEIGHT, WIDTH, [4], 3),
        320: (SHORT, (table[:, :16].astype(int) * 257).ravel().tolist()),
    }
    assert_same(read_bands(build_tiff([tags], [strip])), table.T[four[..., 0]])
    few = {**tags, 320: (SHORT, [0] * 3 * 4)}
    with pytest.raises(ValueError, match='fewer colors than its pixels name|colormap'):
        read_bands(build_tiff([few], [strip]))


@pytest.mark.parametrize('bits', [1, 8, 16])
def test_white_is_zero(bits):
    """Unchanged keeps the stored values, as GDAL does; color shows them."""
    pixels = ramp(np.uint8 if bits <= 8 else np.uint16, largest=2**bits - 1)
    stored = pixels[..., 0].astype(bool) if bits == 1 else pixels[..., 0]
    data = write(stored, photometric='miniswhite')
    assert_same(read_bands(data), pixels)
    expected = 255 - (pixels * (255 / (2**bits - 1))).round().astype(np.uint8)
    assert_same(colors(data), np.repeat(expected, 3, axis=-1))
    assert_same(colors(data, color_type='grayscale'), expected)


@pytest.mark.parametrize('compression', ['group3', 'group4', 'tiff_ccitt'])
def test_ccitt(compression):
    bits = np.random.default_rng(0).random((50, 2453)) < np.linspace(0.01, 0.5, 2453)
    file = BytesIO()
    Image.fromarray(bits).save(file, 'TIFF', compression=compression)
    with tifffile.TiffFile(BytesIO(file.getvalue())) as opened:
        assert opened.pages[0].compression in (2, 3, 4)
        is_inverted = opened.pages[0].photometric == 0
    assert_same(read_bands(file.getvalue()), (bits ^ is_inverted)[..., None].astype(np.uint8))
    assert_same(colors(file.getvalue(), color_type='grayscale'), bits[..., None] * np.uint8(255))


def blocks() -> np.ndarray:
    """Areas of one color each, as large as the largest unit of JPEG, so that colors do not mix."""
    few = np.uint8([[[250, 10, 20], [10, 240, 30]], [[20, 30, 230], [120, 130, 140]]])
    return few.repeat(32, axis=0).repeat(32, axis=1)


def test_jpeg_in_tiff():
    """YCbCr was not converted if only one of two tags noted it."""
    pixels = blocks()
    for layout in ({}, dict(tile=(32, 32)), dict(rowsperstrip=32)):
        for subsampling in ((1, 1), (2, 2)):
            data = write(
                pixels, photometric='rgb', compression='jpeg', subsampling=subsampling, **layout
            )
            with tifffile.TiffFile(BytesIO(data)) as file:
                assert file.pages[0].photometric == 6
            for got in (read_bands(data), colors(data)):
                assert (got.shape, got.dtype) == (pixels.shape, np.uint8)
                # At the borders of blocks, subsampled colors are interpolated.
                difference = np.abs(got.astype(int) - pixels).reshape(2, 32, 2, 32, 3)
                assert difference[:, 4:-4, :, 4:-4].max() <= 4
    gray = write(pixels[..., 0], photometric='minisblack', compression='jpeg')
    assert np.abs(read_bands(gray)[..., 0].astype(int) - pixels[..., 0]).max() <= 4
    with pytest.raises(ValueError, match='ends early'):
        read_bands(gray[: gray.index(b'\xff\xda') + 20])


def ycbcr(pixels: np.ndarray) -> np.ndarray:
    """Converts to (H, W, 3) by the definition of Rec. 601 in JFIF."""
    r, g, b = np.moveaxis(pixels.astype(float), -1, 0)
    y = 0.299 * r + 0.587 * g + 0.114 * b
    return (
        np.stack([y, 128 + (b - y) / 1.772, 128 + (r - y) / 1.402], -1)
        .round()
        .clip(0, 255)
        .astype(np.uint8)
    )


def test_ycbcr_without_jpeg():
    """Y, Cb and Cr were returned as if they were colors, or were rejected."""
    pixels = blocks()
    stored = ycbcr(pixels)
    full = {532: (RATIONAL, [0, 1, 255, 1, 128, 1, 255, 1, 128, 1, 255, 1])}
    tags = {**basic_tags(64, 64, [8] * 3, 6), 530: (SHORT, [1, 1]), **full}
    planes = {**tags, 284: (SHORT, [2]), 278: (LONG, [64])}
    for data in (
        build_tiff([tags], [stored.tobytes()]),
        write(
            stored, photometric='ycbcr', compression='lzw', planarconfig='separate', extratags=[]
        ),
    ):
        for got in (read_bands(data), colors(data)):
            assert np.abs(got.astype(int) - pixels).max() <= 2
    assert planes[284] == (SHORT, [2])
    # Four values of Y for each pair of Cb and Cr.
    y = stored[..., 0].reshape(32, 2, 32, 2).transpose(0, 2, 1, 3).reshape(32, 32, 4)
    strip = zlib.compress(np.concatenate([y, stored[::2, ::2, 1:]], -1).tobytes())
    tags.update({259: (SHORT, [8]), 530: (SHORT, [2, 2])})
    data = build_tiff([tags], [strip])
    for got in (read_bands(data), colors(data)):
        assert np.abs(got.astype(int) - pixels).max() <= 2


@pytest.mark.parametrize('orientation', range(1, 9))
def test_orientation(orientation):
    """The orientation of unchanged TIFF was ignored."""
    seen = ramp(np.uint16)
    stored = {
        1: seen,
        2: seen[:, ::-1],
        3: seen[::-1, ::-1],
        4: seen[::-1],
        5: seen.swapaxes(0, 1),
        6: seen.swapaxes(0, 1)[::-1],
        7: seen.swapaxes(0, 1)[::-1, ::-1],
        8: seen.swapaxes(0, 1)[:, ::-1],
    }[orientation]
    data = write(
        stored[..., 0], photometric='minisblack', extratags=[(274, 'H', 1, orientation, True)]
    )
    assert_same(read_bands(data), seen)
    assert_same(colors(data, color_type='grayscale'), (seen / 257).round().astype(np.uint8))
    assert EncodedImage(data).size == (HEIGHT, WIDTH)


def stack(pages: list[np.ndarray], **options) -> bytes:
    file = BytesIO()
    with tifffile.TiffWriter(file) as writer:
        for page in pages:
            writer.write(page, photometric='minisblack', metadata=None, **options)
    return file.getvalue()


def test_pages_that_nothing_calls_bands_are_refused(tmp_path):
    """All pages were taken for bands."""
    pages = [ramp(np.uint16)[..., 0] + number for number in range(3)]
    data = stack(pages)
    with pytest.raises(
        ValueError,
        match='has 3 images and does not mark them as bands; page=0 takes the first',
    ):
        read_bands(data)
    for number in range(3):
        assert_same(read_bands(data, page=number), pages[number][..., None])
        assert_same(
            colors(data, color_type='grayscale', page=number),
            (pages[number][..., None] / 257).round().astype(np.uint8),
        )
    assert_same(read_bands(data, page='all'), np.stack(pages, -1))
    assert_same(colors(data), colors(data, page=0))
    for page in (3, -1, 'last'):
        with pytest.raises(
            ValueError, match=rf"page='?{page}'? does not exist in a TIFF file of 3 pages"
        ):
            read_bands(data, page=page)
    (tmp_path / 'stack.tif').write_bytes(data)
    for kind in ('LoadRandomCrop', 'LoadCenterCrop'):
        options = dict(type=kind, scale=8, color_type='unchanged', on_error='raise')
        for page, channels in ((0, 1), (2, 1), ('all', 3)):
            img = TRANSFORMS.build(dict(options, page=page))(
                dict(img_path=str(tmp_path / 'stack.tif'))
            )['img']
            assert img.shape == (8, 8, channels) and img.dtype == np.uint16
        with pytest.raises(
            ValueError, match=r'stack.tif cannot be read as an image: .*page=0 takes the first'
        ):
            TRANSFORMS.build(options)(dict(img_path=str(tmp_path / 'stack.tif')))
        for wrong in (dict(page='first'), dict(page=-1), dict(page='all', color_type='color')):
            with pytest.raises(ValueError, match='page='):
                TRANSFORMS.build({**options, **wrong})
    with pytest.raises(ValueError, match='pages of one size and number type'):
        read_bands(stack([pages[0], pages[1][:5]]), page='all')


def test_overviews_and_masks_are_no_images():
    pages = [ramp(np.uint8)[..., 0], ramp(np.uint8)[::2, ::2, 0], ramp(np.uint8)[..., 0] > 127]
    file = BytesIO()
    with tifffile.TiffWriter(file) as writer:
        for page, kind, photometric in zip(
            pages, (0, 1, 4), ('minisblack', 'minisblack', 'mask'), strict=True
        ):
            writer.write(page, photometric=photometric, metadata=None, subfiletype=kind)
    assert_same(read_bands(file.getvalue()), pages[0][..., None])
    assert_same(read_bands(file.getvalue(), page=1), pages[1][..., None])


def test_channels_by_metadata_are_bands():
    first = ramp(np.uint16, 5).transpose(2, 0, 1)
    for options in (
        dict(imagej=True, metadata=dict(axes='CYX')),
        dict(ome=True, metadata=dict(axes='CYX')),
        dict(metadata=dict(axes='CYX')),
    ):
        file = BytesIO()
        tifffile.imwrite(file, first, photometric='minisblack', **options)
        assert_same(read_bands(file.getvalue()), first.transpose(1, 2, 0), options)
        for axes in ('ZYX', 'TYX'):
            file = BytesIO()
            tifffile.imwrite(
                file, first, photometric='minisblack', **{**options, 'metadata': dict(axes=axes)}
            )
            with pytest.raises(ValueError, match='5 images and does not mark them as bands'):
                read_bands(file.getvalue())
            assert_same(read_bands(file.getvalue(), page=3), first[3][..., None])
    file = BytesIO()
    tifffile.imwrite(file, first.transpose(1, 2, 0), photometric='minisblack')
    with pytest.raises(
        ValueError, match="tifffile.imwrite needs planarconfig='contig' for an array"
    ):
        read_bands(file.getvalue())


def test_size_is_checked_before_decoding(monkeypatch):
    """400 pages of 4000 x 4000 in 7 MB took minutes and 6 GB."""
    monkeypatch.setattr(
        tifffile.TiffPage, 'asarray', lambda *args, **kwargs: pytest.fail('decoded')
    )
    monkeypatch.setattr(tiff_module, 'pillow_page', lambda *args: pytest.fail('decoded'))
    strip = zlib.compress(bytes(4000))
    data = build_tiff([basic_tags(4000, 4000, [8], 1, 8)] * 400, [strip] * 400)
    with pytest.raises(ValueError, match='has 400 images and does not mark them as bands'):
        read_bands(data)
    with pytest.raises(ValueError, match='400 bands of 1 bytes take 6400000000 bytes, more than'):
        read_bands(data, page='all')
    large = build_tiff([basic_tags(20000, 20000, [16], 1, 8)], [strip])
    for color_type in ('unchanged', 'color', 'grayscale'):
        with pytest.raises(ValueError, match='20000 x 20000 pixels are more than'):
            EncodedImage(large, color_type=color_type)
    tags = {**basic_tags(8, 8, [8], 1), 322: (LONG, [2**20]), 323: (LONG, [2**20])}
    del tags[278]
    tags.update({324: (LONG, [8]), 325: (LONG, [8])})
    with pytest.raises(ValueError, match='1048576 x 1048576 pixels are more than'):
        read_bands(build_tiff([tags], [strip]))


def test_files_that_end_early_are_refused():
    for options in (
        dict(compression='lzw'),
        dict(compression='deflate'),
        dict(compression='packbits'),
        {},
    ):
        data = write(
            ramp(np.uint16, shape=(200, 100))[..., 0],
            photometric='minisblack',
            rowsperstrip=50,
            **options,
        )
        for color_type in ('unchanged', 'color'):
            with pytest.raises(ValueError, match='ends early|read|bytes'):
                EncodedImage(data[: len(data) * 3 // 4], color_type=color_type)


def test_forms_that_are_not_read_are_named():
    for tags, reason in (
        (
            basic_tags(4, 4, [8], 1, 34676),
            'compression 34676 is not supported; convert it to plain TIFF or to .npy',
        ),
        (
            {**basic_tags(4, 4, [8] * 3, 6), 530: (SHORT, [2, 2])},
            'subsampled colors and no compression',
        ),
        (
            {**basic_tags(4, 4, [64], 1), 339: (SHORT, [6])},
            'complex64; store real and imaginary part, or the amplitude, as bands',
        ),
        (
            {**basic_tags(4, 4, [24], 1, 8), 339: (SHORT, [3]), 317: (SHORT, [3])},
            '24 bits and a predictor',
        ),
    ):
        with pytest.raises(ValueError, match=reason):
            read_bands(build_tiff([tags], [bytes(128)]))
    with pytest.raises(ValueError, match="image of many bands, which color_type='unchanged' reads"):
        EncodedImage(write(ramp(np.uint8, 5), photometric='minisblack', planarconfig='contig'))
