"""Reconstructions against a reference by hand, and all forms of the arguments."""

import numpy as np
import pytest
import torch
from mae_plugin import ReconstructionInferencer, reconstruct_image
from mae_plugin.models.patches import patchify
from mmengine.config import Config
from mmpretrain import get_model
from mmpretrain.registry import MODELS
from PIL import Image

from ..conftest import PRETRAIN, ROOT, TINY, tiny_config, write_jpegs
from .test_images import preprocessor

PICTURES = ('original', 'masked', 'reconstruction', 'pasted')


@pytest.fixture
def model(build_tiny):
    result = build_tiny(head=dict(norm_pix=False))
    result.data_preprocessor = preprocessor()
    return result


@pytest.fixture
def images():
    random = np.random.default_rng(0)
    return [random.integers(0, 256, (32, 32, 3), dtype=np.uint8) for _ in range(3)]


def test_against_a_reference_by_hand(model, images):
    """For unnormalized targets: encoder and decoder called directly, patches placed one by one."""
    result = reconstruct_image(model, images[0], channel_order='rgb', seed=3)
    pixels = torch.from_numpy(images[0]).permute(2, 0, 1)[None].float()
    inputs = (pixels - model.data_preprocessor.mean) / model.data_preprocessor.std
    mask = result.mask[None]
    with torch.no_grad():
        latent, _, ids_restore = model.backbone(inputs, mask)
        pred = model.neck(latent, ids_restore)
        expected = torch.empty(1, 3, 32, 32)
        for row in range(4):
            for column in range(4):
                patch = pred[0, 4 * row + column].view(8, 8, 3).permute(2, 0, 1)
                expected[0, :, 8 * row : 8 * row + 8, 8 * column : 8 * column + 8] = patch
        reconstruction, _ = model.reconstruct(inputs, mask)
        loss = (pred - patchify(inputs, (8, 8))).square().mean(-1)[result.mask[None].bool()].mean()
    torch.testing.assert_close(reconstruction, expected, rtol=0, atol=1e-5)
    assert result.loss == pytest.approx(loss.item(), rel=1e-5)
    seen = expected * model.data_preprocessor.std + model.data_preprocessor.mean
    seen = seen[0].permute(1, 2, 0).round().clamp(0, 255).byte().numpy()
    assert np.array_equal(result.reconstruction, seen)
    removed = result.mask.reshape(4, 4).numpy().repeat(8, 0).repeat(8, 1).astype(bool)
    assert removed.sum() == 12 * 64
    assert np.array_equal(result.original, images[0])
    assert (result.masked[removed] == 128).all()
    assert np.array_equal(result.masked[~removed], images[0][~removed])
    assert np.array_equal(result.pasted[~removed], images[0][~removed])
    assert np.array_equal(result.pasted[removed], seen[removed])
    for name in PICTURES:
        picture = getattr(result, name)
        assert (picture.shape, picture.dtype) == ((32, 32, 3), np.uint8)
    assert result.panel().shape == (32, 4 * 32 + 3 * 2, 3)


def test_normalized_targets(build_tiny, images):
    """A decoder of zeros gives every patch its mean: estimated, or exact with its statistics."""
    model = build_tiny(head=dict(norm_pix=True))
    model.data_preprocessor = preprocessor()
    torch.nn.init.zeros_(model.neck.decoder_pred.weight)
    flat = np.repeat(np.repeat(images[0][::8, ::8], 8, axis=0), 8, axis=1)
    estimated = reconstruct_image(model, flat, channel_order='rgb')
    looked_up = reconstruct_image(model, flat, channel_order='rgb', use_ground_truth_stats=True)
    colors = looked_up.original.reshape(4, 8, 4, 8, 3)
    # For normalized pixels, the mean is over channels too.
    mean, std = np.array([123.675, 116.28, 103.53]), np.array([58.395, 57.12, 57.375])
    level = ((colors[:, 0, :, 0] - mean) / std).mean(-1, keepdims=True)
    expected = (level * std + mean).round().clip(0, 255).repeat(8, 0).repeat(8, 1)
    assert np.abs(looked_up.reconstruction - expected).max() <= 1
    removed = looked_up.mask.reshape(4, 4).numpy().repeat(8, 0).repeat(8, 1).astype(bool)
    assert np.array_equal(estimated.reconstruction[~removed], looked_up.reconstruction[~removed])
    assert np.abs(estimated.reconstruction[removed] - expected[removed]).mean() > 5
    assert looked_up.used_ground_truth_stats and not estimated.used_ground_truth_stats
    assert estimated.loss == looked_up.loss


def test_masks(model, images):
    """Ratios, given masks in every shape, and seeds, for any batch size."""
    inferencer = ReconstructionInferencer(model)
    for ratio, removed in ((None, 12), (0.5, 8), (0.0, 0)):
        assert inferencer(images[0], mask_ratio=ratio)[0].mask.sum() == removed
    assert inferencer(images[0], mask_ratio=0.0)[0].loss == 0
    own = torch.arange(16) % 3 > 0
    for mask in (own, own.numpy(), own.view(4, 4), own.float()[None]):
        assert torch.equal(inferencer(images, mask=mask)[2].mask, own.float())
    each = torch.stack([own, own.roll(1), own.roll(2)])
    for batch_size in (1, 2, 3):
        results = inferencer(images, mask=each.view(3, 4, 4), batch_size=batch_size)
        assert torch.equal(torch.stack([result.mask for result in results]), each.float())
    one, two = (inferencer(images, batch_size=batch_size, seed=5) for batch_size in (1, 3))
    for a, b in zip(one, two, strict=True):
        assert torch.equal(a.mask, b.mask)
        assert np.abs(a.reconstruction.astype(int) - b.reconstruction).max() <= 1
    assert not torch.equal(one[0].mask, one[1].mask)
    assert not torch.equal(one[0].mask, inferencer(images[0], seed=6)[0].mask)
    state = torch.get_rng_state()
    assert len({tuple(inferencer(images[0], seed=None)[0].mask.tolist()) for _ in range(4)}) > 1
    assert torch.equal(state, torch.get_rng_state())


def test_bad_arguments(model, images):
    with pytest.raises(ValueError, match='mask and mask_ratio were both given'):
        reconstruct_image(model, images[0], mask=torch.ones(16), mask_ratio=0.5)
    with pytest.raises(
        ValueError, match=r'mask has shape \(9,\), but there are 3 images of 16 patches'
    ):
        reconstruct_image(model, images, mask=torch.ones(9))
    with pytest.raises(ValueError, match='mask_ratio=1.5'):
        reconstruct_image(model, images[0], mask_ratio=1.5)
    with pytest.raises(ValueError, match='at least one must stay visible'):
        reconstruct_image(model, images[0], mask=torch.ones(16))
    with pytest.raises(ValueError, match='ImageClassifier with LinearClsHead predicts no pixels'):
        reconstruct_image(
            'vit-base-p16_mae-300e-pre_8xb128-coslr-100e_in1k', images[0], pretrained=False
        )
    with pytest.raises(ValueError, match='no-such-model'):
        reconstruct_image('no-such-model', images[0])


def test_models_and_inputs(tmp_path):
    """A model, a config, its path and a file of weights; an image, a list and a folder."""
    config = Config.fromfile(ROOT / PRETRAIN)
    config.model = dict(tiny_config(), data_preprocessor=config.model.data_preprocessor)
    config.test_dataloader.dataset.pipeline[0].scale = 32
    config.dump(tmp_path / 'config.py')
    write_jpegs(tmp_path / 'images', 3, size=(48, 40))
    paths = [str(path) for path in sorted((tmp_path / 'images').iterdir())]
    torch.manual_seed(0)
    bare = MODELS.build(config.model)
    torch.save(dict(state_dict=bare.state_dict()), tmp_path / 'weights.pth')
    weights = str(tmp_path / 'weights.pth')
    expected = reconstruct_image(get_model(config, pretrained=weights), paths[1])
    assert expected.path == paths[1] and expected.original.shape == (32, 32, 3)
    for model in (config, str(tmp_path / 'config.py'), get_model(config)):
        result = reconstruct_image(
            model, tmp_path / 'images' / '001.jpg', pretrained=weights, device='cpu'
        )
        for name in PICTURES:
            assert np.array_equal(getattr(result, name), getattr(expected, name))
    assert not hasattr(bare, '_config')
    folder = reconstruct_image(bare, tmp_path / 'images', batch_size=2)
    listed = reconstruct_image(
        bare, [paths[0], Image.open(paths[1]), np.asarray(Image.open(paths[2]))[..., ::-1]]
    )
    assert [result.path for result in folder] == paths and [result.path for result in listed] == [
        paths[0],
        None,
        None,
    ]
    for one, other in zip(folder, listed, strict=True):
        assert torch.equal(one.mask, other.mask)
        # Two JPEG decoders round differently.
        assert np.abs(one.original.astype(int) - other.original).max() <= 8


def test_a_backbone_that_draws_its_own_masks():
    config = dict(
        TINY,
        backbone=dict(type='MAEHiViT', arch='tiny', img_size=64),
        neck=dict(TINY['neck'], num_patches=16, patch_size=16, embed_dim=384),
        head=dict(TINY['head'], patch_size=16),
    )
    model = MODELS.build(config)
    image = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    state = torch.get_rng_state()
    one, two = (reconstruct_image(model, image, seed=1) for _ in range(2))
    assert torch.equal(state, torch.get_rng_state())
    assert torch.equal(one.mask, two.mask) and one.mask.sum() == 12
    assert np.array_equal(one.pasted, two.pasted)
    assert (
        len({tuple(reconstruct_image(model, image, seed=None).mask.tolist()) for _ in range(4)}) > 1
    )
    with pytest.raises(ValueError, match='MAEHiViT draws its own masks; leave mask_ratio=0.5 out'):
        reconstruct_image(model, image, mask_ratio=0.5)
    with pytest.raises(ValueError, match='MAEHiViT draws its own masks'):
        reconstruct_image(model, image, mask=torch.arange(16) % 4 > 0)
