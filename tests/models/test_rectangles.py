"""Rectangles and other sizes: the model against loops, and features against VisionTransformer."""

import math

import numpy as np
import pytest
import torch
from mae_plugin import MAEViT
from mmpretrain.models import VisionTransformer

# A grid of 2 x 3 patches of 4 x 2 pixels: any swap of two axes changes the result.
SIZE, PATCH, GRID, CHANNELS = (8, 6), (4, 2), (2, 3), 2


def position(row: int, column: int, dim: int) -> torch.Tensor:
    """Computes the authors' embedding of one patch, number by number."""
    quarter = dim // 4
    numbers = []
    for place in (column, row):
        for wave in (math.sin, math.cos):
            numbers += [wave(place / 10000 ** (i / quarter)) for i in range(quarter)]
    return torch.tensor(numbers, dtype=torch.double)


def norm(token: torch.Tensor, layer: torch.nn.LayerNorm) -> torch.Tensor:
    centered = token - token.mean()
    return centered / (centered.square().mean() + layer.eps).sqrt() * layer.weight + layer.bias


def block(tokens: list[torch.Tensor], layer: torch.nn.Module) -> list[torch.Tensor]:
    """Computes a transformer layer, one token and one head at a time."""
    heads, dim = layer.attn.num_heads, layer.attn.embed_dims
    size = dim // heads
    qkv = [layer.attn.qkv.weight @ norm(token, layer.ln1) + layer.attn.qkv.bias for token in tokens]
    out = []
    for i, token in enumerate(tokens):
        parts = []
        for head in range(heads):
            at = slice(head * size, (head + 1) * size)
            scores = torch.stack(
                [qkv[i][:dim][at] @ other[dim : 2 * dim][at] / math.sqrt(size) for other in qkv]
            )
            weights = scores.exp() / scores.exp().sum()
            parts.append(
                sum(w * other[2 * dim :][at] for w, other in zip(weights, qkv, strict=True))
            )
        token = token + layer.attn.proj.weight @ torch.cat(parts) + layer.attn.proj.bias
        hidden = (
            layer.ffn.layers[0][0].weight @ norm(token, layer.ln2) + layer.ffn.layers[0][0].bias
        )
        hidden = hidden * (1 + torch.erf(hidden / math.sqrt(2))) / 2
        out.append(token + layer.ffn.layers[1].weight @ hidden + layer.ffn.layers[1].bias)
    return out


def by_hand(
    model, image: torch.Tensor, removed: list[int], norm_pix: bool
) -> tuple[torch.Tensor, torch.Tensor]:
    """Computes the loss and the predicted pixels of one image (C, H, W)."""
    (ph, pw), (h, w) = PATCH, GRID
    encoder, decoder = model.backbone, model.neck
    kernel = encoder.patch_embed.projection
    tokens, visible = [encoder.cls_token[0, 0]], []
    for row in range(h):
        for column in range(w):
            if row * w + column not in removed:
                token = kernel.bias + position(row, column, encoder.embed_dims)
                for c in range(CHANNELS):
                    for y in range(ph):
                        for x in range(pw):
                            token = (
                                token
                                + kernel.weight[:, c, y, x]
                                * image[c, row * ph + y, column * pw + x]
                            )
                tokens.append(token)
                visible.append(row * w + column)
    for layer in encoder.layers:
        tokens = block(tokens, layer)
    tokens = [
        decoder.decoder_embed.weight @ norm(t, encoder.ln1) + decoder.decoder_embed.bias
        for t in tokens
    ]

    full = [tokens[0]]
    for row in range(h):
        for column in range(w):
            patch = row * w + column
            token = (
                decoder.mask_token[0, 0] if patch in removed else tokens[1 + visible.index(patch)]
            )
            full.append(token + position(row, column, 16))
    for layer in decoder.decoder_blocks:
        full = block(full, layer)

    pixels, errors = torch.zeros(CHANNELS, *SIZE, dtype=torch.double), []
    for row in range(h):
        for column in range(w):
            patch = row * w + column
            pred = (
                decoder.decoder_pred.weight @ norm(full[1 + patch], decoder.ln1)
                + decoder.decoder_pred.bias
            )
            area = image[:, row * ph : (row + 1) * ph, column * pw : (column + 1) * pw]
            mean, std = (area.mean(), (area.var() + 1e-6).sqrt()) if norm_pix else (0, 1)
            for y in range(ph):
                for x in range(pw):
                    for c in range(CHANNELS):
                        number = pred[(y * pw + x) * CHANNELS + c]
                        pixels[c, row * ph + y, column * pw + x] = number
                        if patch in removed:
                            errors.append((number - (area[c, y, x] - mean) / std).square())
    return torch.stack(errors).mean(), pixels


@pytest.mark.parametrize('norm_pix', [False, True])
def test_a_rectangle_equals_loops_over_patches(build_tiny, norm_pix):
    """Loss and reconstruction of rectangles agree within 1e-6; positions are float32."""
    sizes = dict(img_size=SIZE, patch_size=PATCH, in_channels=CHANNELS)
    model = build_tiny(backbone=sizes, head=dict(norm_pix=norm_pix)).double()
    generator = torch.Generator().manual_seed(3)
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.data += 0.2 * torch.randn(parameter.shape, generator=generator)
    images = torch.randn(2, CHANNELS, *SIZE, generator=generator, dtype=torch.double)
    removed = [[0, 2, 4, 5], [1, 2, 3, 4]]
    mask = torch.zeros(2, 6)
    for i, patches in enumerate(removed):
        mask[i, patches] = 1
    with torch.no_grad():
        expected = [
            by_hand(model, image, patches, norm_pix)
            for image, patches in zip(images, removed, strict=True)
        ]
        loss = model.loss(images, mask=mask)['loss']
    torch.testing.assert_close(
        loss, torch.stack([one for one, _ in expected]).mean(), rtol=1e-6, atol=0
    )
    if not norm_pix:
        reconstruction, _ = model.reconstruct(images, mask=mask)
        torch.testing.assert_close(
            reconstruction, torch.stack([p for _, p in expected]), rtol=1e-6, atol=1e-6
        )


def cubic(values: np.ndarray, length: int) -> np.ndarray:
    """Computes cubic convolution (a = -0.75) along the first axis, with repeated edges."""
    before, a = len(values), -0.75
    out = np.zeros((length, *values.shape[1:]))
    for i in range(length):
        at = (i + 0.5) * before / length - 0.5
        for tap in range(math.floor(at) - 1, math.floor(at) + 3):
            d = abs(at - tap)
            weight = (
                (a + 2) * d**3 - (a + 3) * d**2 + 1
                if d <= 1
                else a * d**3 - 5 * a * d**2 + 8 * a * d - 4 * a
            )
            out[i] += weight * values[min(max(tap, 0), before - 1)]
    return out


def test_another_size_has_the_features_of_a_vision_transformer():
    """A model for 224 x 224 agrees at 256 x 192 within 1e-5, masked and unmasked."""
    arch = dict(embed_dims=16, num_layers=2, num_heads=2, feedforward_channels=32)
    torch.manual_seed(0)
    model = MAEViT(arch=arch, mask_ratio=0)
    weights = model.state_dict()
    positions = weights['pos_embed'][0, 1:].reshape(14, 14, 16).numpy()
    resized = cubic(cubic(positions, 16).swapaxes(0, 1), 12).swapaxes(0, 1)
    assert resized.shape == (16, 12, 16)
    tokens = torch.from_numpy(resized.reshape(1, 192, 16)).float()
    reference = VisionTransformer(arch=arch, img_size=(256, 192), out_type='raw')
    reference.load_state_dict(
        {**weights, 'pos_embed': torch.cat([weights['pos_embed'][:, :1], tokens], dim=1)}
    )
    images = torch.randn(2, 3, 256, 192)
    with torch.no_grad():
        (expected,) = reference(images)
        (features,) = model(images, mask=False)
        torch.testing.assert_close(features, expected, rtol=1e-5, atol=1e-5)
        latent, _, ids_restore = model(images)
        order = ids_restore.unsqueeze(-1).expand(-1, -1, 16)
        torch.testing.assert_close(
            latent[:, 1:].gather(1, order), expected[:, 1:], rtol=1e-5, atol=1e-5
        )


def test_decoder_positions_are_resized_alike(build_tiny):
    """A model for 32 x 32 equals, at 48 x 16, one for 48 x 16 with resized embeddings."""
    model = build_tiny(backbone=dict(patch_size=4), head=dict(norm_pix=False))
    weights = model.state_dict()
    for key in ('backbone.pos_embed', 'neck.decoder_pos_embed'):
        positions = weights[key][0, 1:].reshape(8, 8, -1).numpy()
        resized = cubic(cubic(positions, 12).swapaxes(0, 1), 4).swapaxes(0, 1)
        tokens = torch.from_numpy(resized.reshape(1, 48, -1)).float()
        weights[key] = torch.cat([weights[key][:, :1], tokens], dim=1)
    twin = build_tiny(backbone=dict(img_size=(48, 16), patch_size=4), head=dict(norm_pix=False))
    twin.load_state_dict(dict(weights))
    images, noise = torch.randn(2, 3, 48, 16), torch.rand(2, 48)
    for ours, theirs in zip(
        model.reconstruct(images, noise=noise), twin.reconstruct(images, noise=noise), strict=True
    ):
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5)


def test_sizes_that_patches_do_not_tile(build_tiny):
    with pytest.raises(
        ValueError, match=r'36 x 32 pixels cannot be cut .* nearest size that can is 40 x 32'
    ):
        build_tiny(backbone=dict(img_size=(36, 32)))
    with pytest.raises(ValueError, match='nearest size that can is 24 x 48'):
        build_tiny().loss(torch.randn(1, 3, 25, 46))
