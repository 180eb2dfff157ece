"""Reading of images: channel order, sizes and errors; and exact conversion back to pictures."""

import numpy as np
import pytest
import torch
from mae_plugin.analysis.images import ImageReader, find_images, to_pictures
from mmengine.config import Config
from mmpretrain.registry import MODELS
from PIL import Image

from ..conftest import PRETRAIN, ROOT

MEAN, STD = [123.675, 116.28, 103.53], [58.395, 57.12, 57.375]
ORANGE = (255, 128, 0)


def preprocessor(**changes) -> torch.nn.Module:
    return MODELS.build(
        dict(type='SelfSupDataPreprocessor', mean=MEAN, std=STD, to_rgb=True) | changes
    )


def picture_of(model, image, config=None, **changes) -> np.ndarray:
    """Returns an image after reader, preprocessor and conversion back to a picture."""
    sample = ImageReader(model, config, **changes)(image)
    inputs = model.data_preprocessor(
        dict(inputs=sample['inputs'][None], data_samples=[sample['data_samples']]), False
    )
    return to_pictures(inputs['inputs'], model.data_preprocessor)[0]


@pytest.fixture
def model(build_tiny):
    result = build_tiny()
    result.data_preprocessor = preprocessor()
    return result


@pytest.mark.parametrize('kind', ['SelfSupDataPreprocessor', 'BandDataPreprocessor'])
def test_every_value_comes_back(model, kind):
    """All 256 values of all three channels are exact, and red stays red.

    Red and blue were exchanged with BandDataPreprocessor.
    """
    model.data_preprocessor = preprocessor(type=kind)
    array = (
        np.random.default_rng(0)
        .permuted(np.arange(3 * 32 * 32) % 256)
        .reshape(32, 32, 3)
        .astype(np.uint8)
    )
    assert np.array_equal(picture_of(model, array, channel_order='rgb'), array)
    assert np.array_equal(picture_of(model, array), array[..., ::-1])
    assert np.array_equal(picture_of(model, Image.fromarray(array)), array)


@pytest.mark.parametrize('with_config', [False, True])
@pytest.mark.parametrize('to_rgb', [False, True])
def test_channel_order(model, tmp_path, with_config, to_rgb):
    """Orange in a file, a PIL image and an array stays orange, for any channel order."""
    config = Config.fromfile(ROOT / PRETRAIN) if with_config else None
    model.data_preprocessor = preprocessor(to_rgb=to_rgb)
    orange = Image.new('RGB', (60, 40), ORANGE)
    orange.save(tmp_path / 'orange.png')
    rgb = np.asarray(orange)
    for image, order in (
        (tmp_path / 'orange.png', 'bgr'),
        (orange, 'bgr'),
        (rgb[..., ::-1], 'bgr'),
        (rgb, 'rgb'),
    ):
        picture = picture_of(model, image, config, channel_order=order)
        assert picture.shape == ((224, 224, 3) if with_config else (32, 32, 3))
        assert (picture == ORANGE).all()


def test_the_configs_pipeline_is_used(model):
    """Resizing the short edge to 256 and cropping 224 cuts a sixteenth off each side."""
    array = np.zeros((256, 256, 3), np.uint8)
    array[16:-16, 16:-16] = 200
    assert (picture_of(model, array, Config.fromfile(ROOT / PRETRAIN)) == 200).all()


def test_without_a_config_the_image_is_center_cropped(build_tiny):
    model = build_tiny(backbone=dict(img_size=(16, 32)))
    model.data_preprocessor = preprocessor()
    array = np.zeros((96, 64, 3), np.uint8)
    array[24:72] = ORANGE
    assert (picture_of(model, array, channel_order='rgb') == ORANGE).all()


def test_other_channels(build_tiny, tmp_path):
    """One channel is shown as gray; five show the first three, or ``bands``; also unnormalized."""
    gray = np.arange(1024, dtype=np.uint8).reshape(32, 32)
    Image.fromarray(gray).save(tmp_path / 'gray.png')
    one = build_tiny(backbone=dict(in_channels=1))
    for image in (gray, gray[..., None], tmp_path / 'gray.png', Image.fromarray(gray)):
        assert np.array_equal(picture_of(one, image), np.repeat(gray[..., None], 3, axis=2))
    five = build_tiny(backbone=dict(in_channels=5))
    array = np.random.default_rng(0).integers(0, 1000, (32, 32, 5)).astype(np.float32)
    inputs = ImageReader(five)(array)['inputs'][None]
    assert np.array_equal(
        to_pictures(inputs, five.data_preprocessor)[0], array[..., :3].clip(0, 255)
    )
    shown = to_pictures(inputs, five.data_preprocessor, bands=(4, 0, 2), pixel_range=(100, 1120))[0]
    assert np.array_equal(shown, np.round((array[..., [4, 0, 2]] - 100) / 4).clip(0, 255))
    with pytest.raises(ValueError, match=r'bands=\(0, 1, 5\) are not three of the channels 0 to 4'):
        to_pictures(inputs, five.data_preprocessor, bands=(0, 1, 5))
    two = torch.tensor([10.0, 20.0]).view(1, 2, 1, 1)
    assert to_pictures(two, five.data_preprocessor).tolist() == [[[[10, 20, 20]]]]


def test_bad_images(model, build_tiny, tmp_path):
    (tmp_path / 'text.jpg').write_text('not an image')
    Image.new('RGB', (40, 7)).save(tmp_path / 'small.png')
    reader = ImageReader(model)
    with pytest.raises(FileNotFoundError, match=r'there is no image .*no\.jpg'):
        reader(tmp_path / 'no.jpg')
    with pytest.raises(ValueError, match=r'text\.jpg cannot be read as an image'):
        reader(tmp_path / 'text.jpg')
    with pytest.raises(
        ValueError, match=r'small\.png is too small: 7 x 40 pixels are less than one patch of 8 x 8'
    ):
        reader(tmp_path / 'small.png')
    with pytest.raises(
        ValueError, match='the image has 4 channels, but the model takes images of 3'
    ):
        reader(np.zeros((40, 40, 4), np.uint8))
    with pytest.raises(
        ValueError, match=r'small\.png has 3 channels, but the model takes images of 6'
    ):
        ImageReader(build_tiny(backbone=dict(in_channels=6)))(tmp_path / 'small.png')
    with pytest.raises(ValueError, match=r'has shape \(2, 3, 4, 5\)'):
        reader(np.zeros((2, 3, 4, 5), np.uint8))
    with pytest.raises(ValueError, match='not int'):
        reader(7)
    with pytest.raises(ValueError, match="channel_order='gbr'"):
        ImageReader(model, channel_order='gbr')


def test_find_images(tmp_path):
    for name in ('b.jpg', 'a.PNG', 'deep/c.webp', 'notes.txt'):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    everything = [tmp_path / name for name in ('a.PNG', 'b.jpg', 'deep/c.webp')]
    assert find_images(tmp_path) == everything
    assert find_images(str(tmp_path / '**/*.[jw]*')) == everything[1:]
    assert find_images(tmp_path / 'b.jpg', tmp_path / 'deep') == everything[1:]
    with pytest.raises(FileNotFoundError, match=r'matches .*\*\.gif'):
        find_images(tmp_path / '*.gif')
    (tmp_path / 'empty').mkdir()
    with pytest.raises(FileNotFoundError, match='empty holds no images'):
        find_images(tmp_path / 'empty')
