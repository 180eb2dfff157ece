"""Weights of another architecture are refused in a sentence; parts that only one side has are allowed."""

import pytest
import torch
from mae_plugin.models.fit import check_fit


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
        (dict(patch_size=4), r'backbone\.patch_embed\.projection\.weight \(32, 3, 8, 8\) instead of \(32, 3, 4, 4\)'),
    ],
)
def test_other_architectures(build_tiny, change, said):
    arch = dict(embed_dims=32, num_layers=2, num_heads=2, feedforward_channels=64) | change.get('arch', {})
    model = build_tiny(backbone=dict(change, arch=arch))
    weights = build_tiny().state_dict()
    with pytest.raises(ValueError, match=f'c.pth does not fit MAE: .*{said}'):
        check_fit(weights, model, 'c.pth')
    # mmengine and torch's strict loading refuse them alike; torch with strict=False means to load a part.
    with pytest.raises(ValueError, match='does not fit MAE'):
        model.load_state_dict(weights)


def test_nothing_in_common(build_tiny):
    with pytest.raises(
        ValueError, match=r'it holds layer1 \(1\), fc \(1\), but the model backbone\.layers \(24\), neck'
    ):
        check_fit({'layer1.0.weight': torch.zeros(1), 'fc.bias': torch.zeros(1)}, build_tiny())


def test_loading_a_part_on_purpose(build_tiny):
    model, weights = build_tiny(), build_tiny().state_dict()
    some = {key: torch.ones_like(value) for key, value in weights.items() if 'layers.0.' in key}
    model.load_state_dict(some, strict=False)
    assert all((model.state_dict()[key] == 1).all() for key in some)


def test_another_grid_is_resized(build_tiny):
    """Encoder's and decoder's position embeddings alike, as torch's bicubic interpolation does it."""
    source, target = build_tiny(), build_tiny(backbone=dict(img_size=48))
    target.load_state_dict(source.state_dict())
    for key in ('backbone.pos_embed', 'neck.decoder_pos_embed'):
        old, new = source.state_dict()[key], target.state_dict()[key]
        grid = old[:, 1:].reshape(1, 4, 4, -1).permute(0, 3, 1, 2)
        expected = torch.nn.functional.interpolate(grid, (6, 6), mode='bicubic', align_corners=False)
        torch.testing.assert_close(new[:, 1:], expected.flatten(2).transpose(1, 2))
        torch.testing.assert_close(new[:, :1], old[:, :1])
