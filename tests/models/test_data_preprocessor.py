"""Any number of channels from raw pixels to the loss, and pixels without data."""

import pytest
import torch
from mae_plugin.models.patches import patchify
from mmengine.optim import OptimWrapper
from mmpretrain.registry import MODELS
from mmpretrain.structures import DataSample


def build(**kwargs) -> torch.nn.Module:
    return MODELS.build(dict(type='BandDataPreprocessor', **kwargs))


@pytest.mark.parametrize('channels', [1, 2, 4, 13])
def test_any_number_of_channels_trains_and_reconstructs(build_tiny, channels):
    """mmengine's own step on 16-bit pixels of very different channels, with masks of one kind or
    another.
    """
    generator = torch.Generator().manual_seed(0)
    mean, std = (
        [300.0 * (c + 1) for c in range(channels)],
        [10.0 * (c + 1) for c in range(channels)],
    )
    scale = torch.tensor(std).view(-1, 1, 1)
    model = build_tiny(
        backbone=dict(
            in_channels=channels, mask_ratio=0.5, mask_kind='grid' if channels % 2 else 'block'
        )
    )
    model.data_preprocessor = build(mean=mean, std=std)
    coarse = (
        torch.randn(8, channels, 4, 4, generator=generator)
        .repeat_interleave(8, 2)
        .repeat_interleave(8, 3)
    )
    pixels = (torch.tensor(mean).view(-1, 1, 1) + scale * coarse).to(torch.uint16)
    batch = dict(inputs=pixels, data_samples=None)
    torch.testing.assert_close(model.data_preprocessor(batch)['inputs'], coarse, rtol=0, atol=0.1)
    torch.manual_seed(0)
    optimiser = OptimWrapper(torch.optim.AdamW(model.parameters(), lr=3e-3))
    losses = [model.train_step(batch, optimiser)['loss'].item() for _ in range(40)]
    assert sum(losses[-5:]) < 0.95 * sum(losses[:5])
    assert model.reconstruct(coarse)[0].shape == (8, channels, 32, 32)


def test_channels_that_do_not_agree(build_tiny):
    with pytest.raises(ValueError, match='mean of 2 channels, but the backbone takes 4'):
        MODELS.build(
            dict(
                type='MAE',
                backbone=dict(type='MAEViT', in_channels=4),
                data_preprocessor=build(mean=[0, 0], std=[1, 1]),
            )
        )
    with pytest.raises(
        ValueError, match='mean and std have 2 values, but the images have 3 channels'
    ):
        build(mean=[0, 0], std=[1, 1])(dict(inputs=torch.zeros(1, 3, 8, 8)))
    for mean, std, message in (
        ([0], None, 'both be left out'),
        ([0], [1, 2], 'one value'),
        ([0], [0], 'not positive'),
    ):
        with pytest.raises(ValueError, match=message):
            build(mean=mean, std=std)


@pytest.mark.parametrize('nodata', [0, 'nan'])
def test_pixels_without_data(nodata):
    """They become the mean. A number must stand in every channel of a pixel, NaN in one."""
    images = torch.full((2, 3, 4, 4), 7.0)
    images[0, :, 1, 2] = float(nodata)
    images[1, 1, 3, 3] = float(nodata)
    preprocessor = build(mean=[1.0, 2.0, 3.0], std=[1.0, 2.0, 4.0], nodata=nodata, to_rgb=True)
    result = preprocessor(dict(inputs=images, data_samples=None))
    empty = torch.zeros(2, 4, 4, dtype=torch.bool)
    empty[0, 1, 2] = True
    empty[1, 3, 3] = nodata == 'nan'
    assert torch.equal(torch.stack([sample.nodata for sample in result['data_samples']]), empty)
    expected = torch.tensor([6.0, 2.5, 1.0]).view(1, 3, 1, 1).expand(2, 3, 4, 4).clone()
    expected[empty.unsqueeze(1).expand(-1, 3, -1, -1)] = 0
    if nodata == 0:
        expected[1, 1, 3, 3] = -1
    torch.testing.assert_close(result['inputs'], expected)


def test_padding_holds_no_data():
    images = [torch.ones(2, 3, 5), torch.ones(2, 4, 2)]
    result = build(mean=[0, 0], std=[1, 1], nodata=-1, pad_size_divisor=2)(dict(inputs=images))
    assert result['inputs'].shape == (2, 2, 4, 6)
    for sample, (height, width) in zip(result['data_samples'], [(3, 5), (4, 2)], strict=True):
        assert not sample.nodata[:height, :width].any()
        assert sample.nodata.sum() == 24 - height * width
    (sample,) = build(nodata=-1, pad_size_divisor=4)(dict(inputs=torch.ones(1, 2, 3, 8)))[
        'data_samples'
    ]
    assert sample.nodata[3].all() and not sample.nodata[:3].any()


def test_a_classifier_takes_it_too():
    model = MODELS.build(
        dict(
            type='ImageClassifier',
            backbone=dict(type='VisionTransformer', arch='deit-tiny', img_size=32, in_channels=5),
            head=dict(type='LinearClsHead', in_channels=192, num_classes=3),
            train_cfg=dict(augments=[dict(type='Mixup', alpha=0.8)]),
            data_preprocessor=dict(
                type='BandDataPreprocessor', mean=[1] * 5, std=[2] * 5, nodata=0, num_classes=3
            ),
        )
    )
    samples = [DataSample().set_gt_label(1), DataSample().set_gt_label(2)]
    batch = model.data_preprocessor(
        dict(inputs=torch.zeros(2, 5, 32, 32), data_samples=samples), True
    )
    assert not batch['inputs'].any() and batch['data_samples'][0].gt_score.sum() == 1
    assert model(**batch, mode='loss')['loss'].isfinite()


@pytest.mark.parametrize('how', ['removed patches', 'compiled', 'all patches'])
def test_patches_without_data_are_out_of_the_loss(build_tiny, how):
    """The loss is the mean over the removed patches whose every pixel has data; what stands in
    others is not seen.
    """
    model = build_tiny(head=dict(norm_pix=False))
    model.data_preprocessor = build(mean=[2.0] * 3, std=[3.0] * 3, nodata=-9999)
    if how == 'compiled':
        model.compile(backend='eager', fullgraph=True)
    elif how == 'all patches':
        model.why_all_patches = lambda: 'a test'
    pixels = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    pixels[0, :, 5:20, 8:9] = pixels[1, :, 31, 31] = -9999
    batch = model.data_preprocessor(dict(inputs=pixels, data_samples=None), True)
    mask = torch.zeros(2, 16)
    mask[0, [1, 2, 5, 9, 12]] = mask[1, [0, 1, 2, 3, 15]] = 1
    pred, _ = model.reconstruct(batch['inputs'], mask=mask)
    error = patchify((pred - batch['inputs']).square(), (8, 8)).mean(-1)
    counted = [error[0, 2], error[0, 12], *error[1, :4]]
    loss = model.loss(**batch, mask=mask)['loss']
    torch.testing.assert_close(loss, sum(counted) / 6)
    assert model.data_share == pytest.approx(6 / 10)
    # Unlike it, the same images without that knowledge.
    assert abs(model.loss(batch['inputs'], mask=mask)['loss'] - loss) > 1e-3
    assert model.data_share is None

    nothing = model.data_preprocessor(
        dict(inputs=torch.full((2, 3, 32, 32), -9999.0), data_samples=None), True
    )
    model.zero_grad()
    loss = model.loss(**nothing)['loss']
    loss.backward()
    assert loss == 0 and not any(p.grad.any() for p in model.parameters() if p.grad is not None)
