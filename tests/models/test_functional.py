"""Masks, patches and positions against explicit loops and hand-written cases."""

import math

import numpy as np
import pytest
import torch
from mae_plugin.models.masking import masking_from_mask, masking_from_noise, num_visible
from mae_plugin.models.patches import (
    fill_from_visible,
    patch_statistics,
    patchify,
    take_tokens,
    unpatchify,
)
from mae_plugin.models.positions import sincos_position_embedding


@pytest.mark.parametrize(
    ('patches', 'ratio', 'kept'),
    [
        (196, 0.75, 49),
        (100, 0.9, 10),
        (25, 0.8, 5),
        (100, 0.8, 20),
        (256, 0.75, 64),
        (196, 0, 196),
        (4, 0.99, 1),
        (10, 0.5, 5),
    ],
)
def test_num_visible(patches, ratio, kept):
    assert num_visible(patches, ratio) == kept


@pytest.mark.parametrize('ratio', [1, 1.0, 1.5, -0.1, float('nan')])
def test_mask_ratio_out_of_range(ratio):
    with pytest.raises(ValueError, match='mask_ratio'):
        num_visible(196, ratio)


def test_masking_from_noise_by_hand():
    noise = torch.tensor([[0.9, 0.1, 0.5, 0.3], [0.2, 0.2, 0.2, 0.1]])
    masking = masking_from_noise(noise, 2)
    assert masking.ids_keep.tolist() == [[1, 3], [3, 0]]
    # Sorted order is 1 3 2 0, so patch 0 stands last, patch 1 first; equal noise keeps its raster
    # order.
    assert masking.ids_restore.tolist() == [[3, 0, 2, 1], [1, 2, 3, 0]]
    assert masking.mask.tolist() == [[1, 0, 1, 0], [0, 1, 1, 0]]
    assert masking.mask.dtype == torch.float32


def test_kept_and_removed_are_every_patch_once():
    masking = masking_from_noise(torch.rand(64, 30, generator=torch.Generator().manual_seed(0)), 7)
    for row in range(64):
        removed = masking.mask[row].nonzero().flatten().tolist()
        assert sorted(masking.ids_keep[row].tolist() + removed) == list(range(30))
        assert sorted(masking.ids_restore[row].tolist()) == list(range(30))
        # ids_restore leads each visible patch back to its place in the encoder's order.
        assert masking.ids_restore[row][masking.ids_keep[row]].tolist() == list(range(7))


def test_masks_are_uniform():
    """Chi-square over the kept patches of 20,000 draws: single patches, and pairs, which
    independence would miss.
    """
    draws, patches, keep = 20_000, 12, 3
    noise = torch.rand(draws, patches, generator=torch.Generator().manual_seed(0))
    visible = 1 - masking_from_noise(noise, keep).mask.double()
    together = visible.T @ visible

    def chi_square(counts: torch.Tensor, expected: float) -> float:
        return ((counts - expected).square() / expected).sum().item()

    # Quantiles 1 - 1e-4 of chi-square with 11 and 65 degrees of freedom are 37.4 and 113.0; drawing
    # without replacement makes the statistics smaller than that distribution, never larger.
    assert chi_square(together.diag(), draws * keep / patches) < 37.4
    pairs = together[torch.triu_indices(patches, patches, 1).unbind()]
    assert chi_square(pairs, draws * keep * (keep - 1) / (patches * (patches - 1))) < 113.0


def test_masking_from_mask_keeps_raster_order():
    mask = torch.tensor([[1, 0, 1, 0, 0], [0, 0, 1, 1, 0]])
    for given in (mask, mask.bool(), mask.double()):
        masking = masking_from_mask(given, (2, 5))
        assert masking.ids_keep.tolist() == [[1, 3, 4], [0, 1, 4]]
        assert masking.mask.tolist() == mask.tolist()
        assert masking.ids_restore.tolist() == [[3, 0, 4, 1, 2], [0, 1, 3, 4, 2]]


@pytest.mark.parametrize(
    ('mask', 'message'),
    [
        (torch.zeros(2, 4), r'\(2, 4\).*\(2, 5\)'),
        (torch.full((2, 5), 0.5), '0.5'),
        (torch.tensor([[1, 0, 0, 0, 0], [1, 1, 0, 0, 0]]), 'between 1 and 2'),
        (torch.ones(2, 5), 'removes all 5'),
    ],
)
def test_bad_masks(mask, message):
    with pytest.raises(ValueError, match=message):
        masking_from_mask(mask, (2, 5))


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


def test_patch_statistics_by_hand():
    mean, std = patch_statistics(torch.tensor([[[1.0, 2.0, 3.0, 6.0]]]))
    assert mean.item() == 3
    # Unbiased: (4 + 1 + 0 + 9) / 3.
    assert std.item() == pytest.approx(math.sqrt(14 / 3 + 1e-6), rel=1e-6)


def test_fill_from_visible_by_hand():
    values = torch.tensor([[[1.0], [3.0], [100.0], [7.0]]])
    mask = torch.tensor([[0.0, 0.0, 1.0, 0.0]])
    filled = fill_from_visible(values, mask, (2, 2), sigma=1.0)
    # Patch 2 lies below patch 0 (distance 1), left of 3 (1) and across from 1 (square root of 2).
    near, far = math.exp(-1 / 2), math.exp(-2 / 2)
    assert filled[0, 2, 0].item() == pytest.approx(
        (near * 1 + near * 7 + far * 3) / (2 * near + far), rel=1e-6
    )
    assert filled[0, [0, 1, 3], 0].tolist() == [1, 3, 7]
