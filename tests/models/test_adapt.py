"""Weights of another architecture are refused in a sentence; those of another size are brought to
the model's.
"""

import numpy as np
import pytest
import torch
from mae_plugin.models.adapt import (
    check_fit,
    check_numbers,
    source_grid,
    spread_input,
    spread_prediction,
)
from mmengine.runner import load_checkpoint
from mmengine.runner.checkpoint import load_state_dict
from mmpretrain.registry import MODELS


def test_a_part_is_enough(build_tiny):
    model = build_tiny()
    weights = model.state_dict()
    check_fit(weights, model)
    check_fit({key: value for key, value in weights.items() if key.startswith('backbone.')}, model)
    check_fit({**weights, 'head.fc.weight': torch.zeros(3)}, model)
    check_fit({key: value for key, value in weights.items() if 'backbone.ln1' not in key}, model)


@pytest.mark.parametrize(
    ('change', 'said'),
    [
        (dict(arch=dict(num_layers=3)), r'it lacks backbone\.layers \(12\); choose'),
        (dict(arch=dict(num_layers=1)), r'the model has no backbone\.layers \(12\); choose'),
        (
            dict(arch=dict(embed_dims=64)),
            r'\d\d tensors have another shape, the first backbone\.cls_token \(1, 1, 32\)',
        ),
        (
            dict(patch_size=4),
            r'backbone\.patch_embed\.projection\.weight \(32, 3, 8, 8\) instead of \(32, 3, 4, 4\)',
        ),
    ],
)
def test_other_architectures(build_tiny, change, said):
    arch = dict(embed_dims=32, num_layers=2, num_heads=2, feedforward_channels=64) | change.get(
        'arch', {}
    )
    model = build_tiny(backbone=dict(change, arch=arch))
    weights = build_tiny().state_dict()
    with pytest.raises(ValueError, match=f'c.pth does not fit MAE: .*{said}'):
        check_fit(weights, model, 'c.pth')
    # mmengine and torch's strict loading refuse them alike; torch with strict=False means to load a
    # part.
    with pytest.raises(ValueError, match='does not fit MAE'):
        model.load_state_dict(weights)


def test_nothing_in_common(build_tiny):
    with pytest.raises(
        ValueError,
        match=r'it holds layer1 \(1\), fc \(1\), but the model backbone\.layers \(24\), neck',
    ):
        check_fit({'layer1.0.weight': torch.zeros(1), 'fc.bias': torch.zeros(1)}, build_tiny())


SPARSE = torch.zeros(1, 1, 32).to_sparse()
QUANTIZED = torch.quantize_per_tensor(torch.zeros(1, 1, 32), 0.1, 0, torch.qint8)


@pytest.mark.parametrize(
    ('weight', 'said'),
    [
        (np.zeros((1, 1, 32), np.float32), 'a numpy.ndarray, which is not a tensor'),
        ([0.0] * 32, 'a builtins.list, which is not a tensor'),
        (torch.zeros(1, 1, 32, device='meta'), 'on the meta device, without content'),
        (SPARSE, 'sparse'),
        (QUANTIZED, 'quantized'),
        (
            torch.zeros(1, 1, 32, dtype=torch.int8),
            'of torch.int8, where the model has torch.float32',
        ),
        (
            torch.zeros(1, 1, 32, dtype=torch.bool),
            'of torch.bool, where the model has torch.float32',
        ),
        (
            torch.zeros(1, 1, 32, dtype=torch.complex64),
            'of torch.complex64, where the model has torch.float32',
        ),
    ],
)
def test_weights_that_are_none(build_tiny, tmp_path, weight, said):
    """These left the model random, with success, or were converted without a word."""
    model = build_tiny()
    weights = {**model.state_dict(), 'backbone.cls_token': weight}
    with pytest.raises(
        ValueError,
        match=f'c.pth does not fit MAE: backbone.cls_token is {said}; save dense tensors',
    ):
        check_fit(weights, model, 'c.pth')
    with pytest.raises(ValueError, match=f'does not fit MAE: backbone.cls_token is {said}'):
        load_state_dict(model, weights)
    # What is there and no tensor of the model's is none of its weights.
    check_fit({**model.state_dict(), 'other': weight}, model)


def test_a_classifier_of_mmpretrain():
    """mmengine logs such weights and goes on, with the ones drawn at random."""
    arch = dict(embed_dims=32, num_layers=1, num_heads=2, feedforward_channels=64)
    backbone = dict(type='VisionTransformer', arch=arch, img_size=32, patch_size=8)
    model = MODELS.build(dict(type='ImageClassifier', backbone=backbone))
    weights = {**model.state_dict(), 'backbone.cls_token': np.zeros((1, 1, 32), np.float32)}
    with pytest.raises(
        ValueError, match='does not fit ImageClassifier: backbone.cls_token is a numpy.ndarray'
    ):
        load_state_dict(model, weights)


@pytest.mark.parametrize(
    'dtype', [torch.float64, torch.float16, torch.bfloat16, torch.float8_e4m3fn]
)
def test_weights_of_another_precision(build_tiny, dtype):
    source, target = build_tiny(), build_tiny()
    source.backbone.cls_token.data.fill_(0.5)
    weights = {
        key: value.to(dtype) if value.is_floating_point() else value
        for key, value in source.state_dict().items()
    }
    load_state_dict(target, weights)
    assert (target.backbone.cls_token == 0.5).all()


def test_a_counter_stays_an_integer():
    """BatchNorm counts its batches in int64."""
    norm = torch.nn.BatchNorm1d(1)
    check_numbers({'num_batches_tracked': torch.tensor(3, dtype=torch.int32)}, norm)
    with pytest.raises(
        ValueError, match='num_batches_tracked is of torch.float32, where the model has torch.int64'
    ):
        check_numbers({'num_batches_tracked': torch.tensor(3.0)}, norm)


def test_loading_a_part_on_purpose(build_tiny):
    model, weights = build_tiny(), build_tiny().state_dict()
    some = {key: torch.ones_like(value) for key, value in weights.items() if 'layers.0.' in key}
    model.load_state_dict(some, strict=False)
    assert all((model.state_dict()[key] == 1).all() for key in some)


def test_another_grid_is_resized(build_tiny):
    """Encoder's and decoder's position embeddings alike, as torch's bicubic interpolation does
    it.
    """
    source, target = build_tiny(), build_tiny(backbone=dict(img_size=48))
    target.load_state_dict(source.state_dict())
    for key in ('backbone.pos_embed', 'neck.decoder_pos_embed'):
        old, new = source.state_dict()[key], target.state_dict()[key]
        grid = old[:, 1:].reshape(1, 4, 4, -1).permute(0, 3, 1, 2)
        expected = torch.nn.functional.interpolate(
            grid, (6, 6), mode='bicubic', align_corners=False
        )
        torch.testing.assert_close(new[:, 1:], expected.flatten(2).transpose(1, 2))
        torch.testing.assert_close(new[:, :1], old[:, :1])


def resized(positions, before, after):
    """By torch's bicubic interpolation, the first token left alone."""
    grid = positions[:, 1:].reshape(1, *before, -1).permute(0, 3, 1, 2)
    tokens = torch.nn.functional.interpolate(grid, after, mode='bicubic', align_corners=False)
    return torch.cat([positions[:, :1], tokens.flatten(2).transpose(1, 2)], dim=1)


@pytest.mark.parametrize('size', [(48, 24), (24, 48), (48, 48), (32, 72)])
@pytest.mark.parametrize('way', ['torch', 'mmengine'])
def test_a_rectangle_knows_its_grid(build_tiny, tmp_path, caplog, size, way):
    """3 x 6 patches into 6 x 3, as many, and into others: the file says which it is."""
    source, target = (
        build_tiny(backbone=dict(img_size=(24, 48))),
        build_tiny(backbone=dict(img_size=size)),
    )
    torch.save(dict(state_dict=source.state_dict()), tmp_path / 'weights.pth')
    if way == 'torch':
        target.load_state_dict(
            torch.load(tmp_path / 'weights.pth', weights_only=True)['state_dict']
        )
    else:
        load_checkpoint(target, str(tmp_path / 'weights.pth'))
    for key in ('backbone.pos_embed', 'neck.decoder_pos_embed'):
        expected = source.state_dict()[key]
        if size != (24, 48):
            expected = resized(expected, (3, 6), (size[0] // 8, size[1] // 8))
        torch.testing.assert_close(target.state_dict()[key], expected)


def test_the_grid_of_weights_that_do_not_say(build_tiny):
    """As many patches: the model's grid; else a square; else the model's aspect ratio; else a
    sentence.
    """
    assert source_grid(18, (6, 3)) == (6, 3)
    assert source_grid(18, (6, 3), stored=(3, 6)) == (3, 6)
    assert source_grid(196, (4, 49)) == (4, 49)
    assert source_grid(16, (6, 3)) == (4, 4)
    assert source_grid(72, (6, 3)) == (12, 6)
    assert source_grid(8, (6, 3)) == (4, 2)
    for patches, grid in ((72, (6, 4)), (8, (4, 4)), (7, (14, 14)), (3, (5, 3)), (2, (1, 50))):
        with pytest.raises(
            ValueError, match=f'for {patches} patches, .* {grid[0]} x {grid[1]}, .*--src-grid'
        ):
            source_grid(patches, grid)
    weights = dict(build_tiny(backbone=dict(img_size=(16, 32))).state_dict())
    target = build_tiny(backbone=dict(img_size=(32, 64)))
    target.load_state_dict(weights)
    key = 'neck.decoder_pos_embed'
    torch.testing.assert_close(target.state_dict()[key], resized(weights[key], (2, 4), (4, 8)))
    with pytest.raises(ValueError, match='the weights are for 8 patches'):
        build_tiny(backbone=dict(img_size=(32, 24))).load_state_dict(weights)


@pytest.mark.parametrize(('before', 'after'), [(3, 1), (3, 2), (3, 4), (3, 13), (13, 3), (1, 4)])
def test_other_channels(before, after):
    """Images of equal channels give the response they gave before; every old channel has its whole
    weight.
    """
    weight, value = torch.randn(8, before, 2, 3), torch.randn(2, 3)
    new = spread_input(weight, after)
    grey = (new * value).sum(dim=(1, 2, 3))
    torch.testing.assert_close(grey, (weight * value).sum(dim=(1, 2, 3)), rtol=1e-4, atol=1e-5)
    partners = [
        [c for c in range(before) if (c - j) % min(before, after) == 0] for j in range(after)
    ]
    rows = torch.randn(6 * before, 5)
    predicted = spread_prediction(rows, before, after)
    for j, olds in enumerate(partners):
        expected = sum(weight[:, c] / sum(c in other for other in partners) for c in olds)
        torch.testing.assert_close(new[:, j], expected)
        for pixel in range(6):
            mean = sum(rows[pixel * before + c] for c in olds) / len(olds)
            torch.testing.assert_close(predicted[pixel * after + j], mean)


def test_three_channels_load_into_another_number(build_tiny, tmp_path, caplog):
    """By torch, by mmengine and into a backbone by `init_cfg`, with a log line; grey images look as
    before.
    """
    source = build_tiny(head=dict(norm_pix=False))
    torch.save(dict(state_dict=source.state_dict()), tmp_path / 'rgb.pth')
    grey, noise = torch.randn(2, 1, 32, 32), torch.rand(2, 16)
    (tokens,), (pixels, _) = (
        source.extract_feat(grey.expand(-1, 3, -1, -1)),
        source.reconstruct(grey.expand(-1, 3, -1, -1), noise=noise),
    )
    pretrained = dict(type='Pretrained', prefix='backbone.', checkpoint=str(tmp_path / 'rgb.pth'))
    for channels, way in ((1, 'torch'), (5, 'mmengine'), (2, 'init_cfg')):
        backbone = dict(in_channels=channels, init_cfg=pretrained if way == 'init_cfg' else None)
        model = build_tiny(backbone=backbone, head=dict(norm_pix=False))
        if way == 'torch':
            model.load_state_dict(source.state_dict())
        elif way == 'mmengine':
            load_checkpoint(model, str(tmp_path / 'rgb.pth'), strict=True)
        else:
            model.init_weights()
        images = grey.expand(-1, channels, -1, -1)
        torch.testing.assert_close(model.extract_feat(images)[0], tokens, rtol=1e-4, atol=1e-5)
        if way != 'init_cfg':
            reconstruction, _ = model.reconstruct(images, noise=noise)
            assert reconstruction.shape == images.shape
            expected = (
                pixels.mean(dim=1, keepdim=True) if channels == 1 else pixels[:, [0, 1, 2, 0, 1]]
            )
            torch.testing.assert_close(reconstruction, expected, rtol=1e-4, atol=1e-5)
    other = build_tiny(backbone=dict(in_channels=4, patch_size=4))
    with pytest.raises(ValueError, match='another shape'):
        other.load_state_dict(source.state_dict())
    with pytest.raises(
        ValueError, match=r'projection\.weight \(32, 3, 8, 8\) instead of \(32, 4, 8, 8\)'
    ):
        check_fit(source.state_dict(), build_tiny(backbone=dict(in_channels=4)), exact=True)
