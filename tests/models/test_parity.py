"""Loss and every gradient equal those of mmpretrain's MAE and Hugging Face's ViTMAE.

Both sides have the same weights and the same noise. The loss agrees within 1e-5 relative in fp32
and 1e-10 in fp64, and so does the norm of every gradient tensor's difference. Query, key and value
are one tensor, as in mmpretrain's layout, because the gradient of a key bias is rounding alone.
"""

import re

import pytest
import torch
from mmpretrain import models as theirs

from ..conftest import tiny_config

TOLERANCE = {torch.float32: 1e-5, torch.float64: 1e-10}


def images_and_noise(dtype: torch.dtype) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    return torch.randn(4, 3, 32, 32, generator=generator, dtype=dtype), torch.rand(
        4, 16, generator=generator
    )


def randomized(model: torch.nn.Module) -> torch.nn.Module:
    """Draws all trainable parameters, so that no error is hidden by a bias of 0 or a scale of 1."""
    generator = torch.Generator().manual_seed(2)
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.data += 0.1 * torch.randn(parameter.shape, generator=generator)
    return model


def relative(ours: torch.Tensor, reference: torch.Tensor) -> float:
    return ((ours - reference).norm() / reference.norm()).item()


def assert_same(
    ours: torch.nn.Module,
    loss: torch.Tensor,
    reference_loss: torch.Tensor,
    gradients: dict,
    tolerance: float | None = None,
) -> None:
    tolerance = tolerance or TOLERANCE[loss.dtype]
    assert relative(loss, reference_loss) < tolerance
    trainable = {name: p.grad for name, p in ours.named_parameters() if p.requires_grad}
    assert trainable.keys() == gradients.keys()
    worst = max(trainable, key=lambda name: relative(trainable[name], gradients[name]))
    assert relative(trainable[worst], gradients[worst]) < tolerance, worst


def build_mmpretrain(norm_pix: bool) -> torch.nn.Module:
    """Builds the tiny model of the tests from mmpretrain's own classes."""
    config = tiny_config()
    backbone = {k: v for k, v in config['backbone'].items() if k != 'type'}
    neck = {k: v for k, v in config['neck'].items() if k != 'type'}
    return theirs.MAE(
        backbone=theirs.MAEViT(**backbone),
        neck=theirs.MAEPretrainDecoder(num_patches=16, patch_size=8, embed_dim=32, **neck),
        head=theirs.MAEPretrainHead(config['head']['loss'], norm_pix=norm_pix, patch_size=8),
    )


@pytest.mark.parametrize('norm_pix', [True, False])
@pytest.mark.parametrize('dtype', TOLERANCE)
def test_mmpretrain(build_tiny, dtype, norm_pix, monkeypatch):
    ours = randomized(build_tiny(head=dict(norm_pix=norm_pix))).to(dtype)
    reference = build_mmpretrain(norm_pix).to(dtype)
    reference.load_state_dict(ours.state_dict(), strict=True)
    images, noise = images_and_noise(dtype)
    loss = ours.loss(images, noise=noise)['loss']
    loss.backward()
    monkeypatch.setattr(torch, 'rand', lambda *args, **kwargs: noise)
    reference_loss = reference.loss(images, [])['loss']
    reference_loss.backward()
    assert_same(
        ours,
        loss,
        reference_loss,
        {n: p.grad for n, p in reference.named_parameters() if p.requires_grad},
    )


@pytest.mark.parametrize('mode', ['compiled', 'mask', 'checkpointed', 'bfloat16', 'all'])
def test_mmpretrain_in_every_mode(build_tiny, mode, monkeypatch):
    """Every way to run the step agrees; bfloat16 autocast within 3e-2, as roundings differ."""
    with_cp = mode in ('checkpointed', 'all')
    bfloat16 = mode in ('bfloat16', 'all')
    ours = randomized(build_tiny(backbone=dict(with_cp=with_cp), neck=dict(with_cp=with_cp)))
    reference = build_mmpretrain(True)
    reference.load_state_dict(ours.state_dict(), strict=True)
    images, noise = images_and_noise(torch.float32)
    given = dict(noise=noise)
    if mode in ('mask', 'all'):
        # A mask used as noise keeps its visible patches in raster order.
        noise = (noise.argsort(dim=1).argsort(dim=1) >= 4).float()
        given = dict(mask=noise)
    if mode in ('compiled', 'all'):
        torch.compiler.reset()
        ours.compile(fullgraph=True, backend='aot_eager')
    with torch.autocast('cpu', torch.bfloat16, enabled=bfloat16):
        loss = ours.loss(images, **given)['loss']
        monkeypatch.setattr(torch, 'rand', lambda *args, **kwargs: noise)
        reference_loss = reference.loss(images, [])['loss']
    loss.backward()
    reference_loss.backward()
    assert (ours._compiled is not None) == (mode in ('compiled', 'all'))
    gradients = {n: p.grad for n, p in reference.named_parameters() if p.requires_grad}
    assert_same(ours, loss, reference_loss, gradients, 3e-2 if bfloat16 else None)


def test_noise_is_one_torch_rand(build_tiny):
    """The same seed draws the same mask in this model and mmpretrain's."""
    ours, reference = build_tiny(), build_mmpretrain(True)
    reference.load_state_dict(ours.state_dict())
    images, _ = images_and_noise(torch.float32)
    torch.manual_seed(3)
    loss = ours.loss(images)['loss']
    torch.manual_seed(3)
    torch.testing.assert_close(loss, reference.loss(images, [])['loss'], rtol=1e-5, atol=0)


# Hugging Face's names for mmpretrain's. Query, key and value are three tensors, stacked below.
HUGGING_FACE = [
    (r'vit\.embeddings\.patch_embeddings', 'backbone.patch_embed'),
    (r'vit\.embeddings\.position_embeddings', 'backbone.pos_embed'),
    (r'vit\.embeddings\.', 'backbone.'),
    (r'vit\.layernorm', 'backbone.ln1'),
    (r'vit\.', 'backbone.'),
    (r'decoder\.decoder_layers', 'neck.decoder_blocks'),
    (r'decoder\.decoder_norm', 'neck.ln1'),
    (r'decoder\.', 'neck.'),
    (r'attention\.o_proj', 'attn.proj'),
    (r'attention\.[qkv]_proj', 'attn.qkv'),
    (r'layernorm_before', 'ln1'),
    (r'layernorm_after', 'ln2'),
    (r'mlp\.fc1', 'ffn.layers.0.0'),
    (r'mlp\.fc2', 'ffn.layers.1'),
]


def in_our_layout(tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Renames Hugging Face's tensors; query, key and value are stacked in this order."""
    result: dict[str, torch.Tensor] = {}
    for name, tensor in tensors.items():
        for pattern, ours in HUGGING_FACE:
            name = re.sub(rf'(^|\.){pattern}', rf'\g<1>{ours}', name)
        result[name] = (
            torch.cat([result[name], tensor]) if 'attn.qkv' in name and name in result else tensor
        )
    return result


@pytest.mark.openmmlab_only
@pytest.mark.parametrize('norm_pix', [True, False])
@pytest.mark.parametrize('dtype', TOLERANCE)
def test_hugging_face(build_tiny, dtype, norm_pix):
    from transformers import ViTMAEConfig, ViTMAEForPreTraining

    config = ViTMAEConfig(
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=64,
        image_size=32,
        patch_size=8,
        decoder_hidden_size=16,
        decoder_num_hidden_layers=2,
        decoder_num_attention_heads=2,
        decoder_intermediate_size=64,
        layer_norm_eps=1e-6,
        norm_pix_loss=norm_pix,
    )
    torch.manual_seed(0)
    reference = ViTMAEForPreTraining(config)
    # Construction alone leaves their position embeddings at zero, with a flag that they are
    # initialized.
    reference.vit.embeddings.patch_embeddings.projection._is_hf_initialized = False
    reference.vit.embeddings.initialize_weights()
    reference.decoder.initialize_weights(16)
    reference = randomized(reference).to(dtype)
    ours = build_tiny(head=dict(norm_pix=norm_pix)).to(dtype)
    # Position embeddings are compared before loading, as an independent implementation.
    state = in_our_layout(reference.state_dict())
    for name in ('backbone.pos_embed', 'neck.decoder_pos_embed'):
        torch.testing.assert_close(ours.state_dict()[name], state[name], rtol=0, atol=1e-6)
    ours.load_state_dict(state, strict=True)

    images, noise = images_and_noise(dtype)
    loss = ours.loss(images, noise=noise)['loss']
    loss.backward()
    reference_loss = reference(images, noise=noise).loss
    reference_loss.backward()
    gradients = in_our_layout(
        {n: p.grad for n, p in reference.named_parameters() if p.requires_grad}
    )
    assert_same(ours, loss, reference_loss, gradients)


def test_kept_count_differs_only_by_rounding():
    """mmpretrain's int() loses a patch of 25 or 100 at 0.8, and of 100 at 0.9; others agree."""
    from mae_plugin.models.masking import num_visible

    differ = {
        (side * side, ratio / 100)
        for side in range(2, 17)
        for ratio in range(0, 100, 5)
        if num_visible(side * side, ratio / 100) != int(side * side * (1 - ratio / 100))
    }
    for patches, ratio in differ:
        exact = patches * round(100 - 100 * ratio) / 100
        assert num_visible(patches, ratio) == max(1, int(exact))
    assert {(25, 0.8), (100, 0.8), (100, 0.9)} <= differ
