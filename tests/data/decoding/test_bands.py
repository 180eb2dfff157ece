"""Images of any bands and number type, from file to crop: dtype, bands and missing pixels."""

from io import BytesIO

import cv2
import mae_plugin  # noqa: F401  (registers the transforms)
import numpy as np
import pytest
import tifffile
import torch
from mae_plugin.data.decoding.bands import read_bands
from mae_plugin.data.decoding.decode import EncodedImage
from mae_plugin.data.resize import resize
from mmpretrain.registry import TRANSFORMS
from PIL import Image

RANDOM = np.random.default_rng(0)


def saved(image: Image.Image, kind: str) -> bytes:
    file = BytesIO()
    image.save(file, kind)
    return file.getvalue()


def tiff(array: np.ndarray, **kwargs) -> bytes:
    file = BytesIO()
    tifffile.imwrite(file, array, **kwargs)
    return file.getvalue()


def npy(array: np.ndarray) -> bytes:
    file = BytesIO()
    np.save(file, array)
    return file.getvalue()


@pytest.mark.parametrize('dtype', ['uint8', 'uint16', 'int16', 'float32', 'float64', 'int32'])
@pytest.mark.parametrize('bands', [1, 2, 3, 4, 13])
def test_tiff_and_npy(dtype, bands):
    """Bands last, bands first and bands as pages give equal pixels, in either byte order.

    Pages that no metadata mark as bands were taken for bands; now the caller has to choose.
    """
    pixels = (RANDOM.standard_normal((17, 23, bands)) * 100).astype(dtype)
    first = np.ascontiguousarray(pixels.transpose(2, 0, 1))
    planar = 'contig' if bands > 1 else None
    files = [
        tiff(pixels, photometric='minisblack', planarconfig=planar),
        tiff(first, photometric='minisblack', planarconfig='separate' if bands > 1 else None),
        tiff(
            pixels,
            photometric='minisblack',
            planarconfig=planar,
            byteorder='>',
            bigtiff=True,
            compression='zlib',
        ),
        tiff(first, photometric='minisblack', metadata=dict(axes='CYX')),
        npy(pixels),
        npy(first),
        npy(pixels.astype(pixels.dtype.newbyteorder('>'))),
        *([npy(pixels[..., 0]), tiff(pixels[..., 0])] if bands == 1 else []),
    ]
    for number, data in enumerate(files):
        got = read_bands(data)
        assert got.dtype == dtype and got.dtype.isnative and got.flags.c_contiguous, number
        assert np.array_equal(got, pixels), number
    pages = tiff(first, photometric='minisblack', metadata=None)
    assert np.array_equal(read_bands(pages, page='all'), pixels)
    assert np.array_equal(read_bands(pages, page=bands - 1), pixels[..., -1:])
    if bands > 1:
        with pytest.raises(
            ValueError,
            match=rf'has {bands} images and does not mark them as bands; page=0 takes',
        ):
            read_bands(pages)


def test_other_formats():
    color = RANDOM.integers(0, 256, (9, 11, 3), dtype=np.uint8)
    deep = RANDOM.integers(0, 65536, (9, 11, 3), dtype=np.uint16)
    float_tiff = saved(Image.fromarray(color[..., 0].astype(np.float32)), 'TIFF')
    for data, expected in (
        (saved(Image.fromarray(color), 'PNG'), color),
        (saved(Image.fromarray(color[..., 0]), 'PNG'), color[..., :1]),
        (saved(Image.fromarray(np.concatenate([color, color[..., :1]], axis=-1)), 'PNG'), None),
        (saved(Image.fromarray(color), 'TIFF'), color),
        (saved(Image.fromarray(deep[..., 0]), 'PNG'), deep[..., :1]),
        (cv2.imencode('.png', deep[..., ::-1])[1].tobytes(), deep),
        (float_tiff, color[..., :1].astype(np.float32)),
    ):
        got = EncodedImage(data, color_type='unchanged').pixels()
        if expected is None:
            assert got.shape == (9, 11, 4)
        else:
            assert got.dtype == expected.dtype and np.array_equal(got, expected)
    # JPEG keeps its number of channels, and is decoded by the path that supports reduced sizes.
    for mode in ('L', 'RGB', 'CMYK'):
        image = EncodedImage(
            saved(Image.fromarray(color).resize((64, 48)).convert(mode), 'JPEG'),
            'bgr',
            'unchanged',
        )
        expected = np.atleast_3d(np.asarray(Image.open(BytesIO(image.data))))
        assert image.size == (48, 64) and image.pixels().shape == expected.shape
        assert np.abs(image.pixels().astype(int) - expected).max() <= 3
    assert EncodedImage(
        saved(Image.fromarray(color), 'JPEG'), color_type='grayscale'
    ).pixels().shape == (9, 11, 1)


def test_grayscale():
    """One channel: colors are converted by Pillow's luma, and 16 bits are scaled to 8."""
    color = RANDOM.integers(0, 256, (9, 11, 3), dtype=np.uint8)
    got = EncodedImage(saved(Image.fromarray(color), 'PNG'), color_type='grayscale').pixels()
    assert np.abs(got[..., 0] - color @ [0.299, 0.587, 0.114]).max() < 1
    deep = RANDOM.integers(0, 65536, (9, 11), dtype=np.uint16)
    got = EncodedImage(saved(Image.fromarray(deep), 'PNG'), color_type='grayscale').pixels()
    assert np.array_equal(got[..., 0], (deep / 257).round())


def test_what_is_no_image():
    for data, reason in (
        (npy(np.zeros((2, 3, 4, 5))), r'shape \(2, 3, 4, 5\)'),
        (npy(np.zeros((3, 4), complex)), 'complex128; store real and imaginary part'),
        (npy(np.zeros((4, 4)))[:-8], 'Failed to read all data|EOF|cannot reshape'),
        (
            tiff(
                np.zeros((2, 3, 5, 6), np.uint8),
                photometric='minisblack',
                metadata=dict(axes='TZYX'),
            ),
            '6 images and does not mark them as bands; page=0',
        ),
        (
            tiff(
                np.zeros((40, 50, 4), np.float32), photometric='minisblack', planarconfig='contig'
            )[:400],
            'bytes|corrupted|read',
        ),
    ):
        with pytest.raises(ValueError, match=reason):
            read_bands(data)
    for data in (
        npy(np.zeros((4, 4))),
        tiff(np.zeros((40, 50, 13), np.uint16), planarconfig='contig'),
    ):
        with pytest.raises(
            ValueError, match="image of many bands, which color_type='unchanged' reads"
        ):
            EncodedImage(data)


@pytest.mark.parametrize('kind', ['LoadRandomCrop', 'LoadCenterCrop'])
@pytest.mark.parametrize(
    ('dtype', 'bands'), [('uint16', 13), ('uint32', 1), ('float32', 2), ('int16', 1), ('uint8', 4)]
)
def test_crops_keep_bands_and_type(tmp_path, kind, dtype, bands):
    """Every band is cropped, resized and flipped as if alone, and stays in its range of values."""
    pixels = RANDOM.integers(0, 30000 if dtype != 'uint8' else 256, (60, 50, bands)).astype(dtype)
    tifffile.imwrite(
        tmp_path / 'all.tif',
        pixels,
        photometric='minisblack',
        planarconfig='contig' if bands > 1 else None,
    )
    transform = TRANSFORMS.build(dict(type=kind, scale=(24, 40), color_type='unchanged'))
    torch.manual_seed(0)
    img = transform(dict(img_path=str(tmp_path / 'all.tif')))['img']
    assert img.shape == (24, 40, bands) and img.dtype == dtype and img.flags.c_contiguous
    for band in range(bands):
        tifffile.imwrite(tmp_path / 'one.tif', pixels[..., band])
        torch.manual_seed(0)
        alone = transform(dict(img_path=str(tmp_path / 'one.tif')))['img']
        np.testing.assert_allclose(img[..., band], alone[..., 0], rtol=1e-5, atol=1)
    batch = TRANSFORMS.build(dict(type='PackInputs'))(dict(img=img))['inputs']
    assert batch.shape == (bands, 24, 40) and batch.dtype == getattr(torch, dtype)


@pytest.mark.parametrize('nodata', [-9999.0, float('nan')])
def test_resizing_does_not_mix_missing_pixels_in(nodata):
    """For any value of nodata, the other pixels are the same, up to the edge of missing pixels."""
    pixels = RANDOM.uniform(100, 200, (40, 40, 2)).astype(np.float32)
    holes = pixels.copy()
    holes[:12, 30:] = nodata
    out, plain = resize(holes, (20, 20), nodata=nodata), resize(pixels, (20, 20))
    empty = np.isnan(out).any(-1) if np.isnan(nodata) else (out == nodata).all(-1)
    assert empty[:6, 15:].all() and not empty[9:].any() and not empty[:, :12].any()
    assert out[~empty].min() > 0 and out[~empty].max() < 300
    np.testing.assert_allclose(out[12:], plain[12:], rtol=1e-5)
    assert (resize(np.full((8, 8, 1), 7, np.uint16), (4, 4), nodata=7) == 7).all()
