"""The encoder: its input, its output, and its initialization."""

import math

import pytest
import torch
from mae_plugin import MAEViT
from mae_plugin.models.masking import num_visible
from mae_plugin.models.patches import take_tokens, to_pair, unpatchify
from mae_plugin.models.positions import sincos_position_embedding
from mmpretrain.models import VisionTransformer

ARCH = dict(embed_dims=32, num_layers=3, num_heads=2, feedforward_channels=64)


def build(**kwargs) -> MAEViT:
    torch.manual_seed(0)
    return MAEViT(**{**dict(arch=ARCH, img_size=32, patch_size=8), **kwargs})


def test_masked_forward_shapes():
    latent, mask, ids_restore = build()(torch.randn(2, 3, 32, 32))
    assert latent.shape == (2, 1 + 4, 32)
    assert mask.shape == ids_restore.shape == (2, 16)
    assert mask.sum(dim=1).tolist() == [12, 12]


def test_the_output_depends_on_visible_patches_alone():
    """Changing every removed pixel changes nothing in the output."""
    model, images = build(), torch.randn(2, 3, 32, 32)
    noise = torch.rand(2, 16)
    latent, mask, _ = model(images, noise=noise)
    pixels = unpatchify(mask.unsqueeze(-1).expand(-1, -1, 192), (8, 8), (4, 4)).bool()
    other, _, _ = model(torch.where(pixels, torch.full_like(images, 1e6), images), noise=noise)
    assert torch.equal(latent, other)


def test_only_visible_patches_are_projected():
    """The patch projection takes a quarter of the multiply-adds for a quarter of the patches."""
    from torch.utils.flop_counter import FlopCounterMode

    model = build()
    model.layers = torch.nn.ModuleList()
    with FlopCounterMode(display=False) as counter:
        model(torch.randn(2, 3, 32, 32))
    assert counter.get_total_flops() == 2 * (2 * 4) * (3 * 8 * 8) * 32


@pytest.mark.parametrize(
    'patch_cfg',
    [
        dict(norm_cfg=dict(type='LN')),
        dict(bias=False),
        dict(kernel_size=10, padding=1),
        dict(dilation=1),
    ],
)
def test_masked_equals_full_projection(patch_cfg):
    """With every patch visible, in any order, the masked path equals the unmasked one."""
    model = build(mask_ratio=0, patch_cfg=patch_cfg).double()
    images = torch.randn(2, 3, 32, 32, dtype=torch.double)
    latent, mask, ids_restore = model(images)
    (full,) = model(images, mask=False)
    restored = torch.cat([latent[:, :1], take_tokens(latent[:, 1:], ids_restore)], dim=1)
    torch.testing.assert_close(restored, full, rtol=1e-12, atol=1e-12)
    assert not mask.any()


def test_user_mask():
    model, images = build(), torch.randn(2, 3, 32, 32)
    mask = torch.zeros(2, 16)
    mask[0, :12], mask[1, 4:] = 1, 1
    latent, returned, ids_restore = model(images, mask=mask)
    assert torch.equal(returned, mask)
    # The same mask from noise: small is kept, and raster order is the order of the noise.
    by_noise, _, restore = model(images, noise=mask + torch.arange(16) / 100)
    assert torch.equal(latent, by_noise)
    assert torch.equal(ids_restore, restore)
    assert torch.equal(model(images, mask=mask.bool())[0], latent)


def test_bad_input():
    model, images = build(), torch.randn(2, 3, 32, 32)
    for kwargs, message in (
        (dict(noise=torch.rand(2, 15)), r'noise has shape \(2, 15\)'),
        (dict(mask=torch.zeros(2, 16), noise=torch.rand(2, 16)), 'mask and noise were both given'),
        (dict(mask='yes'), "mask='yes'"),
        (dict(mask=torch.zeros(16)), r'mask has shape \(16,\)'),
    ):
        with pytest.raises(ValueError, match=message):
            model(images, **kwargs)
    with pytest.raises(ValueError, match='4 channels.* 3'):
        model(torch.randn(2, 4, 32, 32))
    with pytest.raises(ValueError, match='nearest size that can is 32 x 40'):
        model(torch.randn(2, 3, 32, 41))
    with pytest.raises(ValueError, match='mask_ratio=1'):
        build(mask_ratio=1)


@pytest.mark.parametrize('mask', [None, False])
@pytest.mark.parametrize('size', [(32, 32), (48, 24), (30, 33)])
@pytest.mark.parametrize('out_type', ['raw', 'cls_token', 'featmap', 'avg_featmap'])
def test_unmasked_equals_vision_transformer(out_type, size, mask):
    indices = [0, -1]
    ours = build(out_type=out_type, out_indices=indices)
    theirs = VisionTransformer(
        arch=ARCH, img_size=32, patch_size=8, out_type=out_type, out_indices=[0, 2]
    )
    theirs.load_state_dict(ours.state_dict())
    images = torch.randn(2, 3, *size)
    for a, b in zip(ours(images, mask=mask), theirs(images), strict=True):
        assert torch.equal(a, b)
    assert indices == [0, -1]


def test_mask_false_does_not_mask():
    """mmpretrain's MAEViT masks for mask=False too (``if mask is None or False``)."""
    (features,) = build()(torch.randn(1, 3, 32, 32), mask=False)
    assert features.shape == (1, 17, 32)


@pytest.mark.parametrize(
    ('img_size', 'patch_size', 'channels'), [((32, 48), (8, 16), 5), (24, 4, 1), ((16, 8), 8, 2)]
)
def test_rectangles_and_channels(img_size, patch_size, channels):
    model = build(img_size=img_size, patch_size=patch_size, in_channels=channels)
    (height, width), (ph, pw) = to_pair(img_size), to_pair(patch_size)
    grid = (height // ph, width // pw)
    assert model.patch_resolution == grid
    assert torch.equal(model.pos_embed.data, sincos_position_embedding(grid, 32))
    latent, mask, _ = model(torch.randn(2, channels, height, width))
    assert mask.shape == (2, grid[0] * grid[1])
    assert latent.shape == (2, 1 + num_visible(grid[0] * grid[1], 0.75), 32)


def test_other_input_sizes_resize_the_position_embedding():
    model = build(mask_ratio=0).double()
    images = torch.randn(1, 3, 48, 24, dtype=torch.double)
    latent, _, ids_restore = model(images)
    (full,) = model(images, mask=None)
    torch.testing.assert_close(
        take_tokens(latent[:, 1:], ids_restore), full[:, 1:], rtol=1e-12, atol=1e-12
    )


def test_initialization_is_official():
    model = build(arch={**ARCH, 'embed_dims': 256, 'feedforward_channels': 512})
    model.init_weights()
    assert torch.equal(model.pos_embed.data, sincos_position_embedding((4, 4), 256))
    assert not model.pos_embed.requires_grad
    assert model.cls_token.std().item() == pytest.approx(0.02, rel=0.2)
    layer = model.layers[0]
    for weight in (
        layer.attn.qkv.weight,
        layer.ffn.layers[0][0].weight,
        model.patch_embed.projection.weight.flatten(1),
    ):
        bound = math.sqrt(6 / sum(weight.shape))
        assert 0.99 * bound < weight.abs().max().item() <= bound
        assert weight.std().item() == pytest.approx(bound / math.sqrt(3), rel=0.02)
    for name, bias in model.named_parameters():
        if name.endswith('bias') and 'projection' not in name:
            assert not bias.any(), name
    assert layer.ln1.eps == 1e-6
    assert layer.ln1.weight.unique().tolist() == [1]


def test_loaded_weights_survive_init_weights(tmp_path):
    source = build()
    for parameter in source.parameters():
        torch.nn.init.normal_(parameter.data)
    torch.save(dict(state_dict=source.state_dict()), tmp_path / 'weights.pth')
    pretrained = dict(type='Pretrained', checkpoint=str(tmp_path / 'weights.pth'))
    for init_cfg in (pretrained, [dict(type='TruncNormal', layer='Linear', std=0.02), pretrained]):
        model = build(init_cfg=init_cfg)
        model.init_weights()
        for name, tensor in model.state_dict().items():
            assert torch.equal(tensor, source.state_dict()[name]), name


def test_init_cfg_has_its_say():
    model = build(init_cfg=dict(type='Constant', layer='Linear', val=0.5))
    model.init_weights()
    assert model.layers[0].ffn.layers[1].weight.unique().tolist() == [0.5]
