"""The training crop equals torchvision's on Pillow's pixels; bad files are skipped."""

import io

import numpy as np
import pytest
import torch
from mae_plugin.data import LoadCenterCrop, LoadRandomCrop
from mmengine.dataset import default_collate
from mmpretrain.datasets import CustomDataset
from mmpretrain.registry import TRANSFORMS
from PIL import Image
from torchvision.transforms import (
    CenterCrop,
    Compose,
    InterpolationMode,
    RandomHorizontalFlip,
    RandomResizedCrop,
    Resize,
)

from ..conftest import write_jpegs


def photograph(size: tuple[int, int], seed: int = 0) -> Image.Image:
    """Returns smooth shapes with some noise, as in photographs; size is (width, height)."""
    random = np.random.default_rng(seed)
    coarse = Image.fromarray(random.integers(0, 256, (9, 12, 3), dtype=np.uint8)).resize(
        size, Image.Resampling.BICUBIC
    )
    noisy = np.asarray(coarse) + random.normal(0, 6, (size[1], size[0], 3))
    return Image.fromarray(noisy.clip(0, 255).astype(np.uint8))


def png(image: Image.Image) -> bytes:
    file = io.BytesIO()
    image.save(file, 'PNG', compress_level=1)
    return file.getvalue()


def test_same_crops_as_torchvision_and_same_pixels_as_pillow():
    """Equal box and flip for equal seeds; one pixel in a thousand may differ by over 2 levels."""
    reference = Compose(
        [
            RandomResizedCrop(64, (0.2, 1.0), interpolation=InterpolationMode.BICUBIC),
            RandomHorizontalFlip(),
        ]
    )
    ours = LoadRandomCrop(64, crop_ratio_range=(0.2, 1.0), channel_order='rgb')
    for seed, size in enumerate([(200, 150), (90, 250), (64, 64), (50, 40), (640, 480)] * 4):
        image = photograph(size, seed)
        torch.manual_seed(seed)
        expected = np.asarray(reference(image)).astype(int)
        torch.manual_seed(seed)
        out = ours.transform(dict(img_bytes=png(image)))
        after = torch.rand(1)
        torch.manual_seed(seed)
        reference(image)
        assert torch.equal(after, torch.rand(1))
        assert out['img'].dtype == np.uint8 and out['img'].flags.c_contiguous
        assert (np.abs(out['img'] - expected) > 2).mean() <= 1e-3, (seed, size)
        assert (out['img_shape'], out['ori_shape']) == ((64, 64), size[::-1])


def test_rectangles_and_no_flip():
    out = LoadRandomCrop((32, 80), flip_prob=0).transform(
        dict(img_bytes=png(photograph((200, 100))))
    )
    assert out['img'].shape == (32, 80, 3) and out['flip'] is False
    assert (
        LoadRandomCrop(32, flip_prob=1).transform(dict(img_bytes=png(photograph((90, 90)))))['flip']
        is True
    )


@pytest.mark.parametrize('size', [(200, 150), (150, 201), (97, 333), (80, 60), (256, 256)])
def test_center_crop_is_torchvisions(size):
    image = photograph(size)
    reference = Compose([Resize(256, interpolation=InterpolationMode.BICUBIC), CenterCrop(224)])
    out = LoadCenterCrop(224, channel_order='rgb').transform(dict(img_bytes=png(image)))['img']
    assert out.shape == (224, 224, 3)
    assert (np.abs(out - np.asarray(reference(image)).astype(int)) > 2).mean() <= 1e-3


def test_center_crop_of_rectangles_covers_them():
    """100 x 400 pixels to 64 x 32 is limited by the height, 40 x 10 to 32 x 64 by the width."""
    ramp = np.broadcast_to(np.linspace(0, 255, 400)[None, :, None], (100, 400, 3)).astype(np.uint8)
    out = LoadCenterCrop((64, 32), crop_ratio=1).transform(dict(img=ramp))['img']
    assert out.shape == (64, 32, 3)
    # The middle 32 of 256 columns remain: from 112 / 256 to 144 / 256 of the ramp.
    assert out[0, 0, 0] == pytest.approx(255 * 112.5 / 256, abs=2) and out[
        0, -1, 0
    ] == pytest.approx(255 * 143.5 / 256, abs=2)
    assert LoadCenterCrop((32, 64), crop_ratio=1).transform(dict(img=ramp[:40, :10]))[
        'img'
    ].shape == (32, 64, 3)


def test_reduced_decoding():
    """A crop eight times larger than the output is decoded at reduced size, to similar pixels."""
    file = io.BytesIO()
    photograph((1600, 1200)).save(file, 'JPEG', quality=95)
    whole = (
        LoadCenterCrop(64, crop_ratio=1)
        .transform(dict(img_bytes=file.getvalue()))['img']
        .astype(int)
    )
    fast = LoadCenterCrop(64, crop_ratio=1, reduce=True)
    reduced = fast.transform(dict(img_bytes=file.getvalue()))['img'].astype(int)
    assert fast._last.pixels(8).shape == (150, 200, 3) and fast._last._decoded[0] == 8
    assert 0 < np.abs(reduced - whole).mean() < 3
    torch.manual_seed(0)
    whole = LoadRandomCrop(64, (0.2, 1)).transform(dict(img_bytes=file.getvalue()))
    torch.manual_seed(0)
    reduced = LoadRandomCrop(64, (0.2, 1), reduce=True).transform(dict(img_bytes=file.getvalue()))
    assert reduced['flip'] == whole['flip'] and reduced['ori_shape'] == (1200, 1600)
    assert 0 < np.abs(reduced['img'].astype(int) - whole['img']).mean() < 3


def test_several_crops_of_one_decode(monkeypatch):
    import simplejpeg

    decoded = []
    monkeypatch.setattr(
        simplejpeg,
        'decode_jpeg',
        lambda *args, _decode=simplejpeg.decode_jpeg, **kw: (
            decoded.append(1) or _decode(*args, **kw)
        ),
    )
    file = io.BytesIO()
    photograph((120, 90)).save(file, 'JPEG')
    crop = LoadRandomCrop(32)
    one, other = (crop.transform(dict(img_bytes=file.getvalue()))['img'] for _ in range(2))
    assert len(decoded) == 1 and not np.array_equal(one, other)


def test_takes_the_place_of_mmpretrains_transforms(tmp_path):
    """In a pipeline of its own dataset, to a batch of uint8 tensors in BGR."""
    Image.new('RGB', (60, 50), (255, 0, 0)).save(tmp_path / 'red.png')
    pipeline = [dict(type='LoadRandomCrop', scale=32), dict(type='PackInputs')]
    dataset = CustomDataset(str(tmp_path), with_label=False, pipeline=pipeline)
    batch = default_collate([dataset[0], dataset[0]])
    assert batch['inputs'].shape == (2, 3, 32, 32) and batch['inputs'].dtype == torch.uint8
    assert batch['inputs'].amax(dim=(0, 2, 3)).tolist() == [0, 0, 255]
    assert batch['data_samples'][0].img_path == str(tmp_path / 'red.png')
    assert batch['data_samples'][0].ori_shape == (50, 60)


@pytest.mark.parametrize(
    ('settings', 'message'),
    [
        (
            dict(interpolation='cubic'),
            "interpolation='cubic' is unknown; it is one of 'bicubic', 'bilinear'",
        ),
        (dict(channel_order='RGB'), "channel_order='RGB' is unknown"),
        (dict(on_error='ignore'), "on_error='ignore' is unknown; it is one of 'skip', 'raise'"),
        (dict(max_skipped=5), 'max_skipped=5 is out of range'),
    ],
)
def test_wrong_settings(settings, message):
    with pytest.raises(ValueError, match=message):
        TRANSFORMS.build(dict(type='LoadRandomCrop', scale=32, **settings))


def test_wrong_crop_ratio():
    with pytest.raises(ValueError, match='crop_ratio=1.5 is out of range'):
        LoadCenterCrop(32, crop_ratio=1.5)


# Damage of files in a folder of images.
DAMAGES = {
    'truncated.jpg': lambda path: path.write_bytes(path.read_bytes()[:-800]),
    'empty.jpg': lambda path: path.write_bytes(b''),
    'text.jpg': lambda path: path.write_text('this is no image'),
    'bomb.png': lambda path: path.write_bytes(png(Image.new('1', (20000, 20000)))),
    'vanished.jpg': lambda path: path.unlink(),
}


@pytest.fixture
def folder(tmp_path):
    """Twenty valid images and one of each damage, indexed before the damage is done."""
    write_jpegs(tmp_path, 20, size=(160, 120))
    for name in DAMAGES:
        (tmp_path / name).write_bytes((tmp_path / '000.jpg').read_bytes())
    # A PNG under another name is valid.
    photograph((60, 40)).save(tmp_path / 'wrongly named.jpg', 'PNG')
    pipeline = [dict(type='LoadRandomCrop', scale=32, max_skipped=0.5), dict(type='PackInputs')]
    dataset = CustomDataset(str(tmp_path), with_label=False, pipeline=pipeline)
    for name, damage in DAMAGES.items():
        damage(tmp_path / name)
    return tmp_path, dataset


def test_bad_files_are_skipped_counted_and_logged_once(folder, log):
    path, dataset = folder
    for _ in range(2):
        samples = [dataset[i] for i in range(len(dataset))]
        assert len(samples) == 26 and all(
            sample['inputs'].shape == (3, 32, 32) for sample in samples
        )
    logged = [line for line in log if line.startswith('Skipped')]
    for name in DAMAGES:
        assert sum(f'{path / name}: ' in line for line in logged) == 1, name
    assert len(logged) == len(DAMAGES)
    skipped = dataset.pipeline.transforms[0].skipped
    assert skipped.skipped >= 2 * len(DAMAGES) and skipped.requested == 2 * 26 + skipped.skipped


def test_counts_are_of_all_workers(folder):
    _, dataset = folder
    loader = torch.utils.data.DataLoader(
        dataset, batch_size=4, num_workers=2, collate_fn=default_collate
    )
    assert sum(len(batch['inputs']) for batch in loader) == 26
    skipped = dataset.pipeline.transforms[0].skipped
    assert skipped.skipped >= len(DAMAGES) and skipped.requested == 26 + skipped.skipped


def test_too_many_bad_files_end_the_run(tmp_path):
    write_jpegs(tmp_path, 3)
    for i in range(3):
        (tmp_path / f'bad {i}.jpg').write_text('no image')
    pipeline = [dict(type='LoadRandomCrop', scale=32, max_skipped=0.2)]
    dataset = CustomDataset(str(tmp_path), with_label=False, pipeline=pipeline)
    with pytest.raises(
        RuntimeError,
        match=r'of 1\d\d images could not be read, more than the 20.0% that max_skipped allows',
    ):
        for i in range(1000):
            dataset[i % 6]


def test_only_bad_files_end_the_run(tmp_path):
    (tmp_path / 'bad.jpg').write_text('no image')
    dataset = CustomDataset(
        str(tmp_path), with_label=False, pipeline=[dict(type='LoadRandomCrop', scale=32)]
    )
    with pytest.raises(RuntimeError, match='100 of 100 images could not be read'):
        dataset[0]


@pytest.mark.parametrize('name', DAMAGES)
def test_evaluation_names_the_file(folder, name):
    path, _ = folder
    crop = LoadCenterCrop(32)
    kind, reason = (
        (FileNotFoundError, 'does not exist')
        if name == 'vanished.jpg'
        else (ValueError, 'cannot be read')
    )
    with pytest.raises(kind, match=f'{path / name} {reason}'):
        crop.transform(dict(img_path=str(path / name)))
