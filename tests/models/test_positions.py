"""The sine-cosine position embedding against an explicit loop."""

import math

import numpy as np
import pytest
import torch
from mae_plugin.models.positions import sincos_position_embedding


def test_sincos_against_double_loop():
    h, w, dim = 3, 5, 16
    embedding = sincos_position_embedding((h, w), dim)
    assert embedding.shape == (1, 1 + h * w, dim)
    assert embedding.dtype == torch.float32
    assert not embedding[0, 0].any()
    quarter = dim // 4
    for row in range(h):
        for column in range(w):
            expected = np.zeros(dim)
            for i in range(quarter):
                frequency = 1 / 10000 ** (i / quarter)
                expected[i], expected[quarter + i] = (
                    math.sin(column * frequency),
                    math.cos(column * frequency),
                )
                expected[2 * quarter + i], expected[3 * quarter + i] = (
                    math.sin(row * frequency),
                    math.cos(row * frequency),
                )
            np.testing.assert_allclose(embedding[0, 1 + row * w + column], expected, atol=1e-7)


def test_sincos_dimension():
    with pytest.raises(ValueError, match='divisible by 4, not 18'):
        sincos_position_embedding((2, 2), 18)
