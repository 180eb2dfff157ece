"""Masks: drawn from noise, of every kind, given as patches or pixels, and read from a file."""

import math

import numpy as np
import pytest
import torch
from mae_plugin.models.masking import (
    MASK_KINDS,
    block_noise,
    grid_noise,
    mask_from_pixels,
    masking_from_mask,
    masking_from_noise,
    num_visible,
)
from PIL import Image

GRIDS = [(14, 14), (4, 4), (32, 8), (7, 5), (1, 3), (1, 1)]


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
    # The sorted order is 1 3 2 0, so patch 0 is last and patch 1 first. Equal noise keeps its
    # raster order.
    assert masking.ids_restore.tolist() == [[3, 0, 2, 1], [1, 2, 3, 0]]
    assert masking.mask.tolist() == [[1, 0, 1, 0], [0, 1, 1, 0]]
    assert masking.mask.dtype == torch.float32


def test_kept_and_removed_are_every_patch_once():
    masking = masking_from_noise(torch.rand(64, 30, generator=torch.Generator().manual_seed(0)), 7)
    for row in range(64):
        removed = masking.mask[row].nonzero().flatten().tolist()
        assert sorted(masking.ids_keep[row].tolist() + removed) == list(range(30))
        assert sorted(masking.ids_restore[row].tolist()) == list(range(30))
        # ids_restore maps each visible patch to its place in the encoder's order.
        assert masking.ids_restore[row][masking.ids_keep[row]].tolist() == list(range(7))


def test_masks_are_uniform():
    """Chi-square tests over the kept patches of 20,000 draws accept single patches and pairs."""
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


@pytest.mark.parametrize('grid', GRIDS)
@pytest.mark.parametrize('kind', MASK_KINDS)
def test_every_row_removes_the_same_number(kind, grid):
    """Every kind removes the same number, and needs no values on the host (meta tensors)."""
    length = grid[0] * grid[1]
    noise = torch.rand(50, length, generator=torch.Generator().manual_seed(0))
    for ratio in (0, 0.5, 0.75, 0.9):
        keep = num_visible(length, ratio)
        masking = masking_from_noise(MASK_KINDS[kind](noise, grid), keep)
        assert masking.mask.sum(dim=1).tolist() == [length - keep] * 50
        together = torch.cat([masking.ids_keep, masking.ids_removed], dim=1).sort(dim=1).values
        assert torch.equal(together, torch.arange(length).expand(50, -1))
    assert MASK_KINDS[kind](noise.to('meta'), grid).shape == noise.shape


def test_blocks_by_hand():
    """The first block that covers a patch is found by drawing every block in a loop."""
    h, w = 6, 9
    noise = torch.rand(20, h * w, generator=torch.Generator().manual_seed(1))
    arranged = block_noise(noise, (h, w))
    blocks = h * w // 4
    for image in range(20):
        first = [blocks] * (h * w)
        for block in reversed(range(blocks)):
            area, aspect, top, left = (
                noise[image, part * blocks + block].item() for part in range(4)
            )
            area, aspect = h * w * (0.08 + 0.32 * area), 0.3 ** (2 * aspect - 1)
            height = min(max(round(math.sqrt(area * aspect)), 1), h)
            width = min(max(round(math.sqrt(area / aspect)), 1), w)
            top, left = math.floor(top * (h - height + 1)), math.floor(left * (w - width + 1))
            for row in range(top, top + height):
                for column in range(left, left + width):
                    first[row * w + column] = block
        torch.testing.assert_close(arranged[image], noise[image] - torch.tensor(first))


def test_blocks_hang_together():
    """At 40 % removed, neighbors agree far more often than the 52 % of random masks."""
    noise = torch.rand(1000, 196, generator=torch.Generator().manual_seed(0))
    alike = {}
    for kind in ('random', 'block'):
        mask = masking_from_noise(MASK_KINDS[kind](noise, (14, 14)), 118).mask.view(-1, 14, 14)
        alike[kind] = (mask[:, 1:] == mask[:, :-1]).float().mean().item()
    assert alike['random'] == pytest.approx(0.52, abs=0.01)
    assert alike['block'] > 0.85


@pytest.mark.parametrize('grid', [(14, 14), (32, 8)])
def test_grid_keeps_one_of_every_four(grid):
    """At 75 % the same place of every 2 x 2 is visible; at 50 % the mask is a chessboard."""
    h, w = grid
    noise = torch.rand(200, h * w, generator=torch.Generator().manual_seed(0))
    visible = 1 - masking_from_noise(grid_noise(noise, grid), h * w // 4).mask.view(-1, h, w)
    places = set()
    for image in visible.int().tolist():
        (place,) = {
            tuple(
                (r % 2, c % 2) for r in (row, row + 1) for c in (column, column + 1) if image[r][c]
            )
            for row in range(0, h, 2)
            for column in range(0, w, 2)
        }
        assert len(place) == 1
        places.add(place)
    assert len(places) == 4
    chess = masking_from_noise(grid_noise(noise, grid), h * w // 2).mask.view(-1, h, w)
    assert (chess[:, 1:] != chess[:, :-1]).all() and (chess[:, :, 1:] != chess[:, :, :-1]).all()


@pytest.mark.parametrize('kind', MASK_KINDS)
def test_chosen_on_the_backbone(build_tiny, kind, monkeypatch):
    """One ``torch.rand(B, L)`` per step determines the mask."""
    model, images = build_tiny(backbone=dict(mask_kind=kind)), torch.randn(2, 3, 32, 64)
    noise = torch.rand(2, 32)
    _, expected = model.reconstruct(images, noise=noise)
    draws = []
    monkeypatch.setattr(torch, 'rand', lambda *size, **_: draws.append(size) or noise)
    _, mask = model.reconstruct(images)
    assert draws == [((2, 32),)]
    assert torch.equal(mask, expected)
    assert torch.equal(mask, masking_from_noise(MASK_KINDS[kind](noise, (4, 8)), 8).mask)


def test_pixels_by_hand():
    mask = torch.zeros(4, 6)
    mask[1, 5] = mask[3, 0] = -1
    assert mask_from_pixels(mask, (2, 3)).tolist() == [[False, True, True, False]]
    assert mask_from_pixels(mask.bool().expand(3, -1, -1), (2, 3)).shape == (3, 4)
    assert mask_from_pixels(mask, (4, 2)).tolist() == [[True, False, True]]
    with pytest.raises(ValueError, match=r'\(H, W\) or \(B, H, W\), not \(6,\)'):
        mask_from_pixels(mask[0], (2, 3))


def test_a_mask_of_pixels_is_one_of_patches(build_tiny):
    model, images = build_tiny(), torch.randn(2, 3, 32, 32)
    pixels = torch.zeros(2, 32, 32)
    pixels[0, 3:20, 9] = pixels[1, 30, 0:24] = 1
    patches = torch.zeros(2, 16)
    patches[0, [1, 5, 9]] = patches[1, [12, 13, 14]] = 1
    reconstruction, mask = model.reconstruct(images, mask=pixels)
    assert torch.equal(mask, patches)
    assert torch.equal(reconstruction, model.reconstruct(images, mask=patches)[0])
    assert (
        model.loss(images, mask=pixels.bool())['loss'] == model.loss(images, mask=patches)['loss']
    )
    assert torch.equal(model.reconstruct(images, mask=pixels[:1])[1], patches[:1].expand(2, -1))
    more = pixels.clone()
    more[1, 0, 0] = 1
    for bad, expected_text in (
        (pixels[0], r'mask has shape \(32, 32\).* mask of pixels, \(images, height, width\)'),
        (pixels[:, :16], r'is \(2, 32, 32\) or \(1, 32, 32\), not \(2, 16, 32\)'),
        (more, 'removes between 3 and 4 patches'),
    ):
        with pytest.raises(ValueError, match=expected_text):
            model.reconstruct(images, mask=bad)


def test_a_mask_from_a_file(build_tiny, tmp_path):
    pixels = np.zeros((32, 48), dtype=np.uint8)
    pixels[8:16, 20:40] = 255
    np.save(tmp_path / 'mask.npy', pixels)
    Image.fromarray(pixels).save(tmp_path / 'mask.png')
    expected = torch.zeros(24)
    expected[8:11] = 1
    images = torch.randn(2, 3, 32, 48)
    plain = build_tiny(backbone=dict(img_size=(32, 48)))
    for name in ('mask.npy', 'mask.png'):
        model = build_tiny(backbone=dict(img_size=(32, 48), mask_kind=str(tmp_path / name)))
        reconstruction, mask = model.reconstruct(images)
        assert torch.equal(mask, expected.expand(2, -1))
        assert torch.equal(reconstruction, plain.reconstruct(images, mask=mask)[0])
        assert model.state_dict().keys() == plain.state_dict().keys()
    with pytest.raises(
        ValueError, match=r'mask\.png is for images of \(32, 48\) pixels, not \(32, 32\)'
    ):
        model.loss(torch.randn(2, 3, 32, 32))
    with pytest.raises(
        ValueError, match=r'mask\.png has shape \(32, 48\), but img_size is \(32, 32\)'
    ):
        build_tiny(backbone=dict(mask_kind=str(tmp_path / 'mask.png')))
    with pytest.raises(
        FileNotFoundError,
        match=f"mask_kind='blocks' is neither {', '.join(MASK_KINDS)} nor a file",
    ):
        build_tiny(backbone=dict(mask_kind='blocks'))
