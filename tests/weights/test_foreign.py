"""Weights in foreign layouts, passed directly to mmengine, mmpretrain and the tools."""

from pathlib import Path

import pytest
import torch
from mae_plugin.weights.hugging_face import write_folder
from mae_plugin.weights.loading import load_from_local
from mae_plugin.weights.renaming import from_mmpretrain
from mae_plugin.weights.state_dicts import write_weights
from mmengine.config import Config
from mmengine.runner import CheckpointLoader
from mmpretrain import get_model
from mmpretrain.registry import MODELS
from torch import Tensor

from ..conftest import (
    FINETUNE,
    PRETRAIN,
    SMALL_FINETUNE,
    SMALL_PRETRAIN,
    SMALL_TEST,
    scalars,
    write_jpegs,
)
from .models import ARCH, build, randomized, run_tool
from .test_layouts import assert_identical
from .test_loading import NAME, SMALL

# The size of SMALL_PRETRAIN and SMALL_FINETUNE.
BACKBONE = dict(type='MAEViT', arch='deit-tiny', img_size=64)


def write(weights: dict[str, Tensor], layout: str, path: Path) -> str:
    """Writes weights of mmpretrain to a file in a layout, or, without a suffix, to a folder."""
    weights = from_mmpretrain(weights, layout)
    if path.suffix:
        write_weights(weights, path, layout)
    else:
        write_folder(weights, dict(num_channels=0), path)
    return str(path)


PLACES = [
    ('mae', 'w.pth'),
    ('mae', 'w.safetensors'),
    ('timm', 'w.pth'),
    ('hf', 'w.safetensors'),
    ('hf', 'folder'),
]


@pytest.fixture(scope='module')
def named():
    """Builds a small model of a name with random weights."""
    return randomized(get_model(NAME, **SMALL))


@pytest.mark.parametrize(('layout', 'place'), [pair for pair in PLACES if pair[0] != 'timm'])
def test_get_model(named, tmp_path, layout, place):
    path = write(named.state_dict(), layout, tmp_path / place)
    model = get_model(NAME, pretrained=path, **SMALL)
    assert_identical(model.state_dict(), named.state_dict())


def test_get_model_by_url(named, server, tmp_path):
    """Files of the same name are distinguished by their URLs."""
    other = get_model(NAME, **SMALL)
    for folder, model in (('one', named), ('two', other)):
        (tmp_path / folder).mkdir()
        write(model.state_dict(), 'hf', tmp_path / folder / 'model.safetensors')
        write(model.state_dict(), 'mae', tmp_path / folder / f'{folder}.pth')
    for folder, model in (('one', named), ('two', other)):
        for file in ('model.safetensors', f'{folder}.pth'):
            loaded = get_model(NAME, pretrained=f'{server}/{folder}/{file}', **SMALL)
            assert_identical(loaded.state_dict(), model.state_dict())


@pytest.mark.parametrize(('layout', 'place'), PLACES)
@pytest.mark.parametrize('kind', ['pre-training', 'encoder'])
def test_init_cfg(tmp_path, layout, place, kind):
    """An encoder alone is found under the prefix too, which fine-tuning configs name."""
    source = randomized(build('mmpretrain', kind))
    weights = source.state_dict()
    if kind == 'encoder':
        weights = {f'backbone.{key}': tensor for key, tensor in weights.items()}
    path = write(weights, layout, tmp_path / place)
    init_cfg = dict(type='Pretrained', prefix='backbone.', checkpoint=path)
    model = MODELS.build(
        dict(type='VisionTransformer', arch=ARCH, img_size=32, patch_size=8, init_cfg=init_cfg)
    )
    model.init_weights()
    assert len(model.state_dict()) == 42
    for key, tensor in model.state_dict().items():
        assert torch.equal(tensor, weights[f'backbone.{key}']), key


def test_backbone_alone_in_our_layout(tmp_path):
    source = randomized(build('mmpretrain', 'encoder'))
    torch.save(source.state_dict(), tmp_path / 'w.pth')
    init_cfg = dict(type='Pretrained', checkpoint=str(tmp_path / 'w.pth'))
    model = MODELS.build(
        dict(type='VisionTransformer', arch=ARCH, img_size=32, patch_size=8, init_cfg=init_cfg)
    )
    model.init_weights()
    assert_identical(model.state_dict(), source.state_dict())


def test_anything_else_is_returned_as_it_is(tmp_path):
    """Other models, such as a timm model trained by a Runner, keep their names."""
    timms = from_mmpretrain(build('mmpretrain', 'class-token classifier').state_dict(), 'timm')
    resnet = MODELS.build(dict(type='ResNet', depth=18)).state_dict()
    for saved in (
        resnet,
        dict(model=resnet, epoch=3),
        dict(state_dict=timms, meta=dict(epoch=3)),
        dict(state_dict=build('mmpretrain', 'pre-training').state_dict(), more=1),
        {**timms, 'more': torch.zeros(1)},
    ):
        torch.save(saved, tmp_path / 'w.pth')
        loaded = load_from_local(str(tmp_path / 'w.pth'))
        assert loaded.keys() == saved.keys()
        for name in ('state_dict', 'model'):
            if name in saved:
                assert_identical(loaded[name], saved[name])
    with pytest.raises(FileNotFoundError, match='holds neither'):
        CheckpointLoader.load_checkpoint(str(tmp_path))


@pytest.mark.parametrize(('layout', 'place'), [('mae', 'w.pth'), ('mmpretrain', 'bare.pth')])
def test_fine_tuning_from_a_foreign_encoder(imagenet, tmp_path, capsys, layout, place):
    """After two steps of tools/train.py --pretrained at a tiny rate the weights are the same."""
    source = MODELS.build(BACKBONE).state_dict()
    if layout == 'mmpretrain':
        torch.save(source, tmp_path / place)
    else:
        write(
            {f'backbone.{key}': tensor for key, tensor in source.items()}, layout, tmp_path / place
        )
    options = [*SMALL_FINETUNE, *SMALL_TEST, 'train_cfg.max_epochs=1']
    arguments = [
        '--work-dir',
        tmp_path / 'run',
        '--data-root',
        imagenet,
        '--pretrained',
        tmp_path / place,
    ]
    run_tool(capsys, 'tools/train.py', FINETUNE, *arguments, '--cfg-options', *options)
    trained = torch.load(tmp_path / 'run' / 'epoch_1.pth', weights_only=True)['state_dict']
    for key in (
        'layers.0.attn.qkv.weight',
        'layers.11.ffn.layers.1.weight',
        'pos_embed',
        'cls_token',
    ):
        torch.testing.assert_close(trained[f'backbone.{key}'], source[key], rtol=0, atol=1e-5)


def test_pre_training_from_foreign_weights(tmp_path, capsys):
    """A Runner loads them by load_from; the first steps of the warm-up change almost nothing."""
    write_jpegs(tmp_path / 'images' / 'train', 8)
    config = Config.fromfile(PRETRAIN)
    config.merge_from_dict(
        dict(option.split('=') for option in SMALL_PRETRAIN if 'model.' in option)
    )
    for part in (config.model.backbone, config.model.neck):
        part.update({key: int(value) for key, value in part.items() if str(value).isdigit()})
    source = MODELS.build(config.model).state_dict()
    path = write(source, 'hf', tmp_path / 'folder')
    arguments = ['--work-dir', tmp_path / 'run', '--data-root', tmp_path / 'images']
    options = [*SMALL_PRETRAIN, 'train_cfg.max_epochs=1', f'load_from={path}']
    run_tool(capsys, 'tools/train.py', PRETRAIN, *arguments, '--cfg-options', *options)
    assert len(scalars(tmp_path / 'run')) == 2
    trained = torch.load(tmp_path / 'run' / 'epoch_1.pth', weights_only=True)['state_dict']
    assert trained.keys() == source.keys()
    for key, tensor in source.items():
        torch.testing.assert_close(trained[key], tensor, rtol=0, atol=1e-5)
