"""Antialiased resizing of arrays of any number type."""

import numpy as np
import pytest
from mae_plugin.data.resize import resize
from PIL import Image


def test_resizes_any_type_and_number_of_channels():
    """Against Pillow's float resize, band by band."""
    random = np.random.default_rng(0)

    def pillows(image: np.ndarray) -> np.ndarray:
        bands = [Image.fromarray(band.astype(np.float32)) for band in image.transpose(2, 0, 1)]
        return np.stack(
            [np.asarray(band.resize((24, 16), Image.Resampling.BICUBIC)) for band in bands], axis=-1
        )

    bands = random.random((40, 56, 5), dtype=np.float32)
    np.testing.assert_allclose(resize(bands, (16, 24)), pillows(bands), atol=1e-5)
    deep = (bands * 65535).astype(np.uint16)
    out = resize(deep, (16, 24))
    assert out.dtype == np.uint16 and np.abs(out - pillows(deep)).max() <= 0.55
    extremes = np.where(random.random((40, 56, 1)) < 0.5, 0, 65535).astype(np.uint16)
    assert resize(extremes, (80, 112)).max() == 65535
    same = resize(deep, (40, 56))
    assert np.array_equal(same, deep) and not np.shares_memory(same, deep)
    assert np.array_equal(
        resize(deep[:, ::-1], (16, 24)), resize(np.ascontiguousarray(deep[:, ::-1]), (16, 24))
    )


def test_bool_pixels_are_resized_to_what_most_of_them_are():
    """All of them became True, like floats above 0."""
    half = np.zeros((40, 40, 1), bool)
    half[:, 20:] = True
    for size in ((20, 20), (80, 60)):
        out = resize(half, size)
        expected = np.broadcast_to((np.arange(size[1]) >= size[1] // 2)[None, :, None], (*size, 1))
        assert out.dtype == bool
        np.testing.assert_array_equal(out, expected)


@pytest.mark.parametrize('dtype', ['int32', 'uint32', 'int64', 'uint64'])
def test_integers_of_many_bits_keep_their_values(dtype):
    """float32 has 24 bits: the largest uint32 and int64 became 0 and the smallest number."""
    limits = np.iinfo(dtype)
    for value in (limits.min, 2**24 + 1, limits.max):
        out = resize(np.full((8, 8, 2), value, dtype), (4, 6))
        assert out.dtype == dtype
        # Within the 53 bits of float64, and the rounding of its sums.
        assert all(
            abs(int(pixel) - int(value)) <= abs(int(value)) >> 50 for pixel in out.reshape(-1)
        )
