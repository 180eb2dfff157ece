"""The algorithm: parts that fit, gradients, reconstruction, mmpretrain's and mmengine's
interfaces.
"""

import copy

import pytest
import torch
from mae_plugin import MAE, MAEPretrainDecoder, MAEPretrainHead, MAEViT
from mae_plugin.models.patches import patchify, to_pair, unpatchify
from mae_plugin.models.positions import sincos_position_embedding
from mmengine.optim import OptimWrapper
from mmpretrain.models import LoRAModel
from mmpretrain.registry import MODELS
from torch import nn

from ..conftest import TINY, tiny_config


@pytest.mark.parametrize(
    ('img_size', 'patch_size', 'channels'),
    [(32, 8, 3), ((32, 48), (8, 16), 5), ((16, 64), (16, 8), 1), (224, 14, 3)],
)
def test_neck_and_head_take_their_sizes_from_the_backbone(
    build_tiny, img_size, patch_size, channels
):
    model = build_tiny(
        backbone=dict(img_size=img_size, patch_size=patch_size, in_channels=channels)
    )
    height, width = to_pair(img_size)
    ph, pw = to_pair(patch_size)
    grid = (height // ph, width // pw)
    assert model.neck.grid_size == grid
    assert torch.equal(model.neck.decoder_pos_embed.data, sincos_position_embedding(grid, 16))
    assert model.neck.decoder_pred.out_features == ph * pw * channels
    assert (model.head.patch_size, model.head.in_channels) == ((ph, pw), channels)
    images = torch.randn(2, channels, height, width)
    assert model.loss(images)['loss'].isfinite()
    reconstruction, mask = model.reconstruct(images)
    assert reconstruction.shape == images.shape
    assert mask.shape == (2, grid[0] * grid[1])


@pytest.mark.parametrize(
    ('part', 'name', 'value', 'right'),
    [
        ('neck', 'num_patches', 25, '16'),
        ('neck', 'patch_size', 16, r'\(8, 8\)'),
        ('neck', 'in_chans', 1, '3'),
        ('neck', 'embed_dim', 768, '32'),
        ('head', 'patch_size', 16, r'\(8, 8\)'),
        ('head', 'in_channels', 4, '3'),
    ],
)
def test_conflicting_sizes_are_refused(build_tiny, part, name, value, right):
    with pytest.raises(ValueError, match=rf'{name}={value}, but the backbone has {right}'):
        build_tiny(**{part: {name: value}})


def test_explicit_sizes_that_agree_and_built_parts(build_tiny):
    build_tiny(
        neck=dict(num_patches=16, patch_size=8, in_chans=3, embed_dim=32),
        head=dict(patch_size=(8, 8), in_channels=3),
    )
    config = tiny_config()
    backbone = MODELS.build(config['backbone'])
    neck = MAEPretrainDecoder(
        embed_dim=32, patch_size=8, grid_size=(4, 4), decoder_embed_dim=16, decoder_num_heads=2
    )
    MAE(backbone, neck, MAEPretrainHead(config['head']['loss'], patch_size=8))
    with pytest.raises(ValueError, match='patch_size'):
        MAE(backbone, neck, MAEPretrainHead(config['head']['loss']))
    with pytest.raises(ValueError, match='predicts 100 numbers per patch, but a patch has 192'):
        build_tiny(neck=dict(predict_feature_dim=100))


def test_building_leaves_the_config_alone():
    config = tiny_config()
    MODELS.build(copy.deepcopy(config))
    MODELS.build(config)
    assert config == TINY


def test_every_trainable_parameter_gets_a_gradient(build_tiny):
    model = build_tiny()
    model.loss(torch.randn(2, 3, 32, 32))['loss'].backward()
    frozen = {'backbone.pos_embed', 'neck.decoder_pos_embed'}
    for name, parameter in model.named_parameters():
        assert parameter.requires_grad == (name not in frozen), name
        if name in frozen:
            assert parameter.grad is None
        else:
            assert parameter.grad.abs().sum() > 0, name


def test_nothing_masked_has_no_loss_and_no_gradient(build_tiny):
    model = build_tiny(backbone=dict(mask_ratio=0))
    loss = model.loss(torch.randn(2, 3, 32, 32))['loss']
    loss.backward()
    assert loss.item() == 0
    assert not any(p.grad.any() for p in model.parameters() if p.grad is not None)


def test_reconstruct_by_hand(build_tiny):
    model = build_tiny(head=dict(norm_pix=False)).double()
    images, noise = torch.randn(2, 3, 32, 32, dtype=torch.double), torch.rand(2, 16)
    reconstruction, mask = model.reconstruct(images, noise=noise)
    assert not reconstruction.requires_grad
    latent, expected_mask, ids_restore = model.backbone(images, noise=noise)
    assert torch.equal(mask, expected_mask)
    prediction = model.neck(latent, ids_restore)
    assert torch.equal(reconstruction, unpatchify(prediction, (8, 8), (4, 4)))
    # What the loss says is what the pixels say.
    error = patchify((reconstruction - images).square(), (8, 8)).mean(-1)
    by_pixels = (error * mask).sum() / mask.sum()
    torch.testing.assert_close(
        model.loss(images, noise=noise)['loss'], by_pixels, rtol=1e-12, atol=0
    )


def test_reconstruction_does_not_depend_on_hidden_pixels(build_tiny):
    model, images = build_tiny(), torch.randn(1, 3, 32, 32)
    mask = (torch.arange(16) % 4 > 0).float().unsqueeze(0)
    pixels = unpatchify(mask.unsqueeze(-1).expand(-1, -1, 192), (8, 8), (4, 4)).bool()
    first, returned = model.reconstruct(images, mask=mask)
    second, _ = model.reconstruct(torch.where(pixels, 7.0, images), mask=mask)
    assert torch.equal(first, second)
    assert torch.equal(returned, mask)


def test_other_sizes_from_batch_to_batch(build_tiny):
    model = build_tiny()
    for size in ((32, 32), (64, 32), (24, 40)):
        loss = model.loss(torch.randn(2, 3, *size))['loss']
        loss.backward()
        assert loss.isfinite()
        assert model.reconstruct(torch.randn(1, 3, *size))[0].shape[-2:] == size


def test_forward_modes(build_tiny):
    model, images = build_tiny().eval(), torch.randn(2, 3, 32, 32)
    (features,) = model(images)
    assert features.shape == (2, 17, 32)
    assert torch.equal(features, model.extract_feat(images)[0])
    assert model(images, mode='loss')['loss'].ndim == 0


@pytest.mark.parametrize('mask', [None, False])
def test_nothing_to_predict(build_tiny, mask):
    with pytest.raises(ValueError, match=f'mask={mask} leaves nothing to predict'):
        build_tiny().loss(torch.randn(1, 3, 32, 32), mask=mask)


def test_an_encoder_alone_extracts_features():
    model = MODELS.build(dict(type='MAE', backbone=tiny_config()['backbone']))
    assert model.extract_feat(torch.randn(1, 3, 32, 32))[0].shape == (1, 17, 32)


def test_train_step(build_tiny):
    """mmengine's own step on uint8 BGR images, normalised by the preprocessor, reduces the loss."""
    model = build_tiny(backbone=dict(mask_ratio=0.5))
    model.data_preprocessor = MODELS.build(
        dict(type='SelfSupDataPreprocessor', mean=[120.0] * 3, std=[60.0] * 3, to_rgb=True)
    )
    optimiser = OptimWrapper(torch.optim.AdamW(model.parameters(), lr=3e-3))
    images = torch.randint(0, 256, (8, 3, 32, 32), dtype=torch.uint8)
    losses = [
        model.train_step(dict(inputs=images, data_samples=None), optimiser)['loss'].item()
        for _ in range(60)
    ]
    assert sum(losses[-5:]) < 0.95 * sum(losses[:5])


def test_layer_depth_for_layer_decay(build_tiny):
    model = build_tiny()
    assert model.get_layer_depth('backbone.cls_token') == (0, 4)
    assert model.get_layer_depth('backbone.layers.1.ln1.weight') == (2, 4)


def test_arguments_of_mmpretrains_classes_are_accepted():
    """The four constructors take every argument name of mmpretrain's, in the same order."""
    import inspect

    from mmpretrain import models as theirs

    for ours in (MAE, MAEViT, MAEPretrainDecoder, MAEPretrainHead):
        names = list(inspect.signature(getattr(theirs, ours.__name__).__init__).parameters)
        assert list(inspect.signature(ours.__init__).parameters)[: len(names)] == names


def test_activation_checkpointing(build_tiny):
    """Less is kept for the backward pass; loss and gradients, with random depth too, are the same
    to the last bit.
    """
    images, noise = torch.randn(4, 3, 32, 32), torch.rand(4, 16)
    results = []
    for with_cp in (False, True):
        saved = []
        model = build_tiny(
            backbone=dict(with_cp=with_cp, drop_path_rate=0.3), neck=dict(with_cp=with_cp)
        )
        torch.manual_seed(1)
        with torch.autograd.graph.saved_tensors_hooks(
            lambda t: saved.append(t.nbytes) or t,  # noqa: B023
            lambda t: t,
        ):
            loss = model.loss(images, noise=noise)['loss']
        kept = sum(saved)
        loss.backward()
        results.append((loss, [p.grad for p in model.parameters() if p.requires_grad], kept))
    (loss, gradients, kept), (other, others, less) = results
    assert loss == other and all(map(torch.equal, gradients, others))
    assert less < 0.6 * kept


def test_the_step_counts_fewer_operations():
    """Only visible patches projected, only removed ones asked for: at least 2 % under mmpretrain's
    for ViT-B.
    """
    from mmpretrain import models as theirs
    from torch.nn.attention import SDPBackend, sdpa_kernel
    from torch.utils.flop_counter import FlopCounterMode

    def flops(model) -> int:
        with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
            model.loss(torch.zeros(1, 3, 224, 224), [])['loss'].backward()
        return counter.get_total_flops()

    loss = dict(type='PixelReconstructionLoss', criterion='L2')
    ours = MODELS.build(
        dict(
            type='MAE',
            backbone=dict(type='MAEViT'),
            neck=dict(type='MAEPretrainDecoder'),
            head=dict(type='MAEPretrainHead', loss=loss, norm_pix=True),
        )
    )
    reference = theirs.MAE(
        backbone=theirs.MAEViT(),
        neck=theirs.MAEPretrainDecoder(embed_dim=768),
        head=theirs.MAEPretrainHead(loss, norm_pix=True),
    )
    assert flops(ours) <= 0.98 * flops(reference)


def test_inside_another_module(build_tiny):
    """LoRAModel loads a few tensors of its own into an MAE; the outer module decides what may be
    missing.
    """
    lora = LoRAModel(tiny_config(), alpha=1, rank=4, targets=[dict(type='qkv')])
    state = lora.state_dict()
    assert state and all('lora_' in key for key in state)
    for value in state.values():
        value.fill_(0.5)
    assert (
        str(lora.load_state_dict(copy.deepcopy(state), strict=True))
        == '<All keys matched successfully>'
    )
    assert all((value == 0.5).all() for value in lora.state_dict().values())

    outer = nn.Sequential(build_tiny(), nn.Linear(2, 2))
    part = {key: value for key, value in outer.state_dict().items() if '.neck.' not in key}
    missing = outer.load_state_dict(part, strict=False).missing_keys
    assert missing and all(key.startswith('0.neck.') for key in missing)
    with pytest.raises(RuntimeError, match='Missing key'):
        outer.load_state_dict(part)
    # Loaded into the model itself, the same weights are refused.
    with pytest.raises(ValueError, match='lacks'):
        build_tiny().load_state_dict(
            {key: value for key, value in outer[0].state_dict().items() if '.ln1.' not in key}
        )


class _Plain(MAEPretrainDecoder):
    """Overrides nothing."""


class _OtherForward(MAEPretrainDecoder):
    def forward(self, x, ids_restore, grid=None):
        """Takes no removed_only."""
        return 2 * super().forward(x, ids_restore, grid)


class _StatedForward(MAEPretrainDecoder):
    predicts_removed_only = True

    def forward(self, x, ids_restore, grid=None, removed_only=False):
        """Takes removed_only, as its class states."""
        return 2 * super().forward(x, ids_restore, grid, removed_only)


class _OtherLoss(MAEPretrainHead):
    def loss(self, pred, target, mask):
        """Another loss, which loss_of_removed does not compute."""
        return super().loss(pred, target, mask) + 1


class _OtherEncoder(MAEViT):
    def forward(self, x, mask=True, noise=None):
        """Takes masks, but may not take a Masking."""
        return super().forward(x, mask, noise)


@pytest.mark.parametrize(
    ('part', 'cls', 'reason'),
    [
        ('neck', _Plain, None),
        ('neck', _StatedForward, None),
        ('neck', _OtherForward, '_OtherForward overrides forward and does not set predicts_'),
        ('head', _OtherLoss, '_OtherLoss overrides loss and does not set has_loss_of_removed'),
        ('backbone', _OtherEncoder, '_OtherEncoder overrides forward and does not set encodes_'),
    ],
)
def test_subclasses_of_the_parts(build_tiny, part, cls, reason):
    """A subclass took the slow path whatever it overrode; its own forward or loss is always used."""
    model = build_tiny(**{part: dict(type=cls)})
    found = model.why_all_patches()
    assert found is None if reason is None else found.startswith(reason)
    inputs, noise = torch.randn(2, 3, 32, 32), torch.rand(2, 16)
    loss = model.loss(inputs, noise=noise)['loss']
    # The same by way of all patches.
    pred, mask = model.predict_patches(inputs, noise=noise)
    torch.testing.assert_close(loss, model.head.loss(pred, inputs, mask))
