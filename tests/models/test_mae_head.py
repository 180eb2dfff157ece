"""The head: targets, loss, and conversion of predictions to pixels."""

import math

import pytest
import torch
from mae_plugin import MAEPretrainHead
from mae_plugin.models.masking import masking_from_noise
from mmpretrain import models as mmpretrain_models

LOSS = dict(type='PixelReconstructionLoss', criterion='L2')


@pytest.mark.parametrize('norm_pix', [False, True])
def test_equals_mmpretrains_head(norm_pix):
    ours = MAEPretrainHead(LOSS, norm_pix=norm_pix, patch_size=8, in_channels=3)
    theirs = mmpretrain_models.MAEPretrainHead(LOSS, norm_pix=norm_pix, patch_size=8, in_channels=3)
    images, pred = torch.randn(2, 3, 32, 32), torch.randn(2, 16, 192)
    mask = masking_from_noise(torch.rand(2, 16), 4).mask
    assert torch.equal(ours.construct_target(images), theirs.construct_target(images))
    assert torch.equal(ours.unpatchify(pred), theirs.unpatchify(pred))
    torch.testing.assert_close(
        ours.loss(pred, images, mask), theirs.loss(pred, images, mask), rtol=1e-7, atol=0
    )


def test_loss_by_hand():
    head = MAEPretrainHead(LOSS, patch_size=(1, 2), in_channels=1)
    images = torch.tensor([[[[1.0, 2.0, 3.0, 4.0]]]])
    pred = torch.tensor([[[1.0, 1.0], [0.0, 0.0]]])
    # The errors of patch 0 are (0, 1), those of patch 1 (3, 4).
    assert head.loss(pred, images, torch.tensor([[1.0, 0.0]])).item() == 0.5
    assert head.loss(pred, images, torch.tensor([[0.0, 1.0]])).item() == 12.5
    assert head.loss(pred, images, torch.tensor([[1.0, 1.0]])).item() == 6.5


def test_nothing_removed():
    """mmpretrain's head divides 0 by 0 without removed patches."""
    head = MAEPretrainHead(LOSS, norm_pix=True, patch_size=8)
    pred = torch.randn(2, 16, 192, requires_grad=True)
    loss = head.loss(pred, torch.randn(2, 3, 32, 32), torch.zeros(2, 16))
    loss.backward()
    assert loss.item() == 0
    assert not pred.grad.any()


def test_to_pixels_of_raw_targets_is_unpatchify():
    head = MAEPretrainHead(LOSS, patch_size=(4, 8))
    images = torch.randn(2, 3, 16, 16)
    assert torch.equal(
        head.to_pixels(head.construct_target(images), images, torch.ones(2, 8)), images
    )


def test_to_pixels_uses_visible_patches_only():
    head = MAEPretrainHead(LOSS, norm_pix=True, patch_size=2, in_channels=1)
    images = torch.randn(1, 1, 4, 4, dtype=torch.double)
    mask = torch.tensor([[0.0, 0.0, 1.0, 0.0]])
    target = head.construct_target(images)
    pixels = head.patchify(head.to_pixels(target, images, mask))
    patches = head.patchify(images)
    torch.testing.assert_close(pixels[0, [0, 1, 3]], patches[0, [0, 1, 3]], rtol=1e-12, atol=1e-12)
    # The removed patch gets the weighted statistics of its neighbors, written out.
    near, far = math.exp(-0.5), math.exp(-1)
    weights = torch.tensor([near, far, near], dtype=torch.double) / (2 * near + far)
    visible = patches[0, [0, 1, 3]]
    mean, std = (
        (weights * visible.mean(-1)).sum(),
        (weights * (visible.var(-1) + 1e-6).sqrt()).sum(),
    )
    torch.testing.assert_close(pixels[0, 2], target[0, 2] * std + mean, rtol=1e-12, atol=1e-12)
    hidden = images.clone()
    hidden[..., 2:, :2] = 99
    assert torch.equal(head.to_pixels(target, hidden, mask), head.to_pixels(target, images, mask))


def test_bad_channels():
    with pytest.raises(ValueError, match='1 channels.* 3'):
        MAEPretrainHead(LOSS).patchify(torch.zeros(1, 1, 32, 32))
