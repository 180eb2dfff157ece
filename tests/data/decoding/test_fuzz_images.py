"""Damaged images of every format give an array or a ValueError, within limits."""

import pytest

from .fuzz_images import EncodedImage, fuzz, seeds


def test_undamaged_images_are_read():
    """Damage would have no meaning otherwise."""
    for name, data in seeds().items():
        # Huffman-coded bytes are valid arithmetic code of a damaged image.
        if 'arithmetic' not in name:
            assert EncodedImage(data, color_type='unchanged').pixels().size > 0, name
        if not name.startswith(('npy', 'tiff', 'jpeg a', 'jpeg progressive a')):
            assert EncodedImage(data).pixels().shape[-1] == 3, name


def test_some_damaged_images():
    outcomes = fuzz(range(1500))
    assert outcomes['decoded'] > 100 and outcomes['refused'] > 100


@pytest.mark.slow
def test_many_damaged_images():
    for start in range(0, 40000, 4000):
        fuzz(range(start, start + 4000), seed=1)
