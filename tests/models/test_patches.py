"""Patches against explicit loops and hand-written cases."""

import math

import pytest
import torch
from mae_plugin.models.patches import (
    fill_from_visible,
    patch_statistics,
    patchify,
    take_tokens,
    unpatchify,
)


def test_take():
    tokens = torch.arange(12.0).reshape(1, 4, 3)
    assert take_tokens(tokens, torch.tensor([[2, 0]])).tolist() == [[[6, 7, 8], [0, 1, 2]]]


@pytest.mark.parametrize('patch', [(4, 4), (2, 6)])
def test_patchify_against_loops(patch):
    ph, pw = patch
    images = torch.randn(2, 3, 3 * ph, 2 * pw)
    patches = patchify(images, patch)
    assert patches.shape == (2, 6, ph * pw * 3)
    for b in range(2):
        for row in range(3):
            for column in range(2):
                at = 0
                for y in range(ph):
                    for x in range(pw):
                        for channel in range(3):
                            pixel = images[b, channel, row * ph + y, column * pw + x]
                            assert patches[b, row * 2 + column, at] == pixel
                            at += 1
    assert torch.equal(unpatchify(patches, patch, (3, 2)), images)


def test_sizes_that_do_not_fit():
    with pytest.raises(ValueError, match='33 x 40 .* 16 x 16.* 32 x 48'):
        patchify(torch.zeros(1, 3, 33, 40), (16, 16))
    with pytest.raises(ValueError, match='nearest size that can is 16 x 16'):
        patchify(torch.zeros(1, 3, 3, 17), (16, 16))
    with pytest.raises(ValueError, match='5 patches of 12'):
        unpatchify(torch.zeros(1, 5, 12), (2, 2), (2, 2))


def test_patch_statistics_by_hand():
    mean, std = patch_statistics(torch.tensor([[[1.0, 2.0, 3.0, 6.0]]]))
    assert mean.item() == 3
    # Unbiased: (4 + 1 + 0 + 9) / 3.
    assert std.item() == pytest.approx(math.sqrt(14 / 3 + 1e-6), rel=1e-6)


def test_fill_from_visible_by_hand():
    values = torch.tensor([[[1.0], [3.0], [100.0], [7.0]]])
    mask = torch.tensor([[0.0, 0.0, 1.0, 0.0]])
    filled = fill_from_visible(values, mask, (2, 2), sigma=1.0)
    # Patch 2 is below patch 0 (distance 1), left of 3 (1) and diagonal to 1 (square root of 2).
    near, far = math.exp(-1 / 2), math.exp(-2 / 2)
    assert filled[0, 2, 0].item() == pytest.approx(
        (near * 1 + near * 7 + far * 3) / (2 * near + far), rel=1e-6
    )
    assert filled[0, [0, 1, 3], 0].tolist() == [1, 3, 7]
