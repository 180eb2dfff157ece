"""Weights for another grid of patches or other channels are adapted to the model's."""

import pytest
import torch
from mae_plugin.models.adapt import (
    ENCODER_KEYS,
    Wanted,
    adapt,
    compare,
    wanted_by,
)
from mae_plugin.models.channels import spread_input, spread_prediction
from mae_plugin.models.check_weights import check_weights
from mae_plugin.models.grids import source_grid
from mmengine.runner import load_checkpoint


def test_the_state_dict_stays_as_it_is(build_tiny):
    """The function is pure, and its report names each tensor that it changed."""
    source, target = build_tiny(), build_tiny(backbone=dict(img_size=48, in_channels=5))
    weights = source.state_dict()
    before = {key: tensor.clone() for key, tensor in weights.items()}
    shapes = {key: tensor.shape for key, tensor in target.state_dict().items()}
    adapted, report = adapt(weights, wanted_by(target), shapes=shapes)
    assert weights.keys() == before.keys()
    assert all(torch.equal(weights[key], before[key]) for key in weights)
    assert {key: tensor.shape for key, tensor in adapted.items()} == shapes
    assert sorted(map(str, report.changes)) == [
        'Changed backbone.patch_embed.projection.weight from 3 to 5 channels.',
        'Changed neck.decoder_pred.bias from 3 to 5 channels.',
        'Changed neck.decoder_pred.weight from 3 to 5 channels.',
        'Resized backbone.pos_embed from (4, 4) to (6, 6) patches.',
        'Resized neck.decoder_pos_embed from (4, 4) to (6, 6) patches.',
    ]
    for change in report.changes:
        assert tuple(adapted[change.key].shape) == tuple(change.shape)
    assert not report.missing and not report.unexpected and not report.reshaped
    # Every other tensor is the same object.
    changed = {change.key for change in report.changes}
    assert all(adapted[key] is weights[key] for key in weights if key not in changed)


def test_the_report_lists_what_does_not_match(build_tiny):
    shapes = {'a.pos_embed': torch.Size([1, 5, 8]), 'b': torch.Size([2]), 'c': torch.Size([3])}
    weights = {'a.pos_embed': torch.zeros(1, 17, 9), 'c': torch.zeros(4), 'd': torch.zeros(1)}
    wanted = [Wanted('a.', ENCODER_KEYS, (8, 8), grid=(2, 2))]
    report = compare(weights, wanted, shapes=shapes)
    assert report.missing == ['b'] and report.unexpected == ['d']
    assert report.reshaped == {'a.pos_embed': ((1, 17, 9), (1, 5, 8)), 'c': ((4,), (3,))}


def test_another_grid_is_resized(build_tiny):
    """The position embeddings of encoder and decoder are resized like torch's bicubic images."""
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
    """Resizes position embeddings by torch's bicubic interpolation, except for the first token."""
    grid = positions[:, 1:].reshape(1, *before, -1).permute(0, 3, 1, 2)
    tokens = torch.nn.functional.interpolate(grid, after, mode='bicubic', align_corners=False)
    return torch.cat([positions[:, :1], tokens.flatten(2).transpose(1, 2)], dim=1)


@pytest.mark.parametrize('size', [(48, 24), (24, 48), (48, 48), (32, 72)])
@pytest.mark.parametrize('way', ['torch', 'mmengine'])
def test_a_rectangle_keeps_its_grid(build_tiny, tmp_path, caplog, size, way):
    """A file notes its grid, so 3 x 6 patches are resized to 6 x 3 and to other grids."""
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


def test_the_grid_of_weights_without_a_note(build_tiny):
    """The model's grid is assumed, else a square, else the model's aspect ratio."""
    assert source_grid(18, wanted=(6, 3)) == (6, 3)
    assert source_grid(18, (3, 6), (6, 3)) == (3, 6)
    assert source_grid(196, wanted=(4, 49)) == (4, 49)
    assert source_grid(16, wanted=(6, 3)) == (4, 4)
    assert source_grid(72, wanted=(6, 3)) == (12, 6)
    assert source_grid(8, wanted=(6, 3)) == (4, 2)
    # A note of another number of patches is outdated.
    assert source_grid(18, (5, 5), (6, 3)) == (6, 3)
    assert source_grid(16) == source_grid(16, (3, 5)) == (4, 4)
    with pytest.raises(ValueError, match=r'for 18 patches, .* square .* grid=\(ROWS, COLUMNS\)'):
        source_grid(18)
    for patches, grid in ((72, (6, 4)), (8, (4, 4)), (7, (14, 14)), (3, (5, 3)), (2, (1, 50))):
        with pytest.raises(
            ValueError, match=f'for {patches} patches, .* {grid[0]} x {grid[1]}, .*--src-grid'
        ):
            source_grid(patches, wanted=grid)
    weights = dict(build_tiny(backbone=dict(img_size=(16, 32))).state_dict())
    target = build_tiny(backbone=dict(img_size=(32, 64)))
    target.load_state_dict(weights)
    key = 'neck.decoder_pos_embed'
    torch.testing.assert_close(target.state_dict()[key], resized(weights[key], (2, 4), (4, 8)))
    with pytest.raises(ValueError, match='the weights are for 8 patches'):
        build_tiny(backbone=dict(img_size=(32, 24))).load_state_dict(weights)


@pytest.mark.parametrize(('before', 'after'), [(3, 1), (3, 2), (3, 4), (3, 13), (13, 3), (1, 4)])
def test_other_channels(before, after):
    """Images of equal channels keep their tokens, and every old channel its whole weight."""
    weight, value = torch.randn(8, before, 2, 3), torch.randn(2, 3)
    new = spread_input(weight, after)
    gray = (new * value).sum(dim=(1, 2, 3))
    torch.testing.assert_close(gray, (weight * value).sum(dim=(1, 2, 3)), rtol=1e-4, atol=1e-5)
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
    """torch, mmengine and ``init_cfg`` adapt the channels; gray images keep their features."""
    source = build_tiny(head=dict(norm_pix=False))
    torch.save(dict(state_dict=source.state_dict()), tmp_path / 'rgb.pth')
    gray, noise = torch.randn(2, 1, 32, 32), torch.rand(2, 16)
    (tokens,), (pixels, _) = (
        source.extract_feat(gray.expand(-1, 3, -1, -1)),
        source.reconstruct(gray.expand(-1, 3, -1, -1), noise=noise),
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
        images = gray.expand(-1, channels, -1, -1)
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
        check_weights(source.state_dict(), build_tiny(backbone=dict(in_channels=4)), exact=True)
