"""mmpretrain's functions accept configs, work dirs and checkpoints as models, and all names."""

from pathlib import Path

import mae_plugin  # noqa: F401  (extends mmpretrain's hub)
import mmpretrain
import numpy as np
import pytest
import torch
from mae_plugin import reconstruct_image
from mae_plugin.apis.hub import accept_paths
from mae_plugin.weights.stored_config import parse_config, stored_config
from mmengine.config import Config
from mmpretrain import get_model, inference_model
from mmpretrain.apis.model import ModelHub
from mmpretrain.registry import MODELS

from ..conftest import FINETUNE, PRETRAIN, ROOT, tiny_config

TINY_BACKBONE = dict(
    arch=dict(_delete_=True, embed_dims=32, num_layers=2, num_heads=2, feedforward_channels=64),
    img_size=32,
    patch_size=8,
)


@pytest.fixture(scope='module')
def run(tmp_path_factory) -> Path:
    """The work dir of a fine-tuned classifier of three classes that always predicts the second."""
    folder = tmp_path_factory.mktemp('run')
    cfg = Config.fromfile(ROOT / FINETUNE)
    cfg.merge_from_dict(
        {
            **{f'model.backbone.{name}': value for name, value in TINY_BACKBONE.items()},
            'model.head.in_channels': 32,
            'model.head.num_classes': 3,
            'test_dataloader.dataset.pipeline.0.scale': 32,
        }
    )
    cfg.dump(folder / 'config.py')
    model = get_model(cfg)
    state_dict = model.state_dict()
    state_dict[
        'head.layers.head.weight' if 'head.layers.head.weight' in state_dict else 'head.fc.weight'
    ].zero_()
    state_dict[
        'head.layers.head.bias' if 'head.layers.head.bias' in state_dict else 'head.fc.bias'
    ][:] = torch.tensor([0.0, 9.0, 0.0])
    meta = dict(
        cfg=cfg.pretty_text, dataset_meta=dict(classes=['ant', 'bee', 'cat']), epoch=1, iter=4
    )
    torch.save(dict(meta=meta, state_dict=state_dict, message_hub={}), folder / 'epoch_1.pth')
    (folder / 'last_checkpoint').write_text(str(folder / 'epoch_1.pth'))
    return folder


@pytest.fixture
def image() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (40, 50, 3), dtype=np.uint8)


@pytest.mark.parametrize('name', ['', 'epoch_1.pth'])
def test_a_run_classifies(run, image, name):
    """Both raised "Failed to find model"."""
    result = inference_model(str(run / name), image)
    assert (result['pred_label'], result['pred_class']) == (1, 'bee')
    assert result['pred_score'] > 0.9
    model = get_model(str(run / name), pretrained=True)
    assert model._dataset_meta['classes'] == ['ant', 'bee', 'cat']
    assert model.backbone.embed_dims == 32


def test_paths_are_taken_as_text_is(run, image):
    """``get_model`` raised UnboundLocalError for a Path, and weights at a Path were ignored."""
    for place in (run, run / 'epoch_1.pth', run / 'config.py'):
        model = get_model(place, pretrained=run / 'epoch_1.pth')
        assert model._dataset_meta['classes'] == ['ant', 'bee', 'cat']
        assert inference_model(place, image, pretrained=run / 'epoch_1.pth')['pred_class'] == 'bee'
    assert inference_model(run, image)['pred_class'] == 'bee'
    assert mmpretrain.apis.base.get_model is mmpretrain.apis.model.get_model is get_model
    with pytest.raises(ValueError, match='did you mean'):
        get_model(Path('mae_vit-mini-p8_1xb128-coslr-20e_64p'))


@pytest.fixture(scope='module')
def pretraining(tmp_path_factory) -> Path:
    """A checkpoint of a pre-training run, which contains its config."""
    cfg = Config(dict(model=tiny_config()))
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp('pretraining') / 'epoch_1.pth'
    meta = dict(cfg=cfg.pretty_text, epoch=1, iter=4)
    torch.save(dict(meta=meta, state_dict=get_model(cfg).state_dict(), message_hub={}), path)
    return path


@pytest.mark.parametrize('kind', ['path', 'text', 'config', 'model', 'weights by path'])
def test_a_pretraining_model_reconstructs(pretraining, image, kind):
    """mmpretrain's ``inference_model`` had no inferencer for it."""
    expected = reconstruct_image(str(pretraining), image, mask_ratio=0.5)
    config, pretrained = Config(dict(model=tiny_config())), dict(pretrained=pretraining)
    model, options = {
        'path': (pretraining, {}),
        'text': (str(pretraining), {}),
        'config': (config, pretrained),
        'model': (get_model(pretraining, pretrained=True), {}),
        'weights by path': (MODELS.build(tiny_config()), pretrained),
    }[kind]
    result = inference_model(model, image, mask_ratio=0.5, **options)
    assert result.loss == expected.loss
    np.testing.assert_array_equal(result.reconstruction, expected.reconstruction)


def test_other_models_keep_their_inferencers(image):
    with pytest.raises(NotImplementedError, match='No available inferencer'):
        inference_model('mocov3_resnet50_8xb512-amp-coslr-100e_in1k', image)
    with pytest.raises(ValueError, match='there is no model'):
        inference_model('no_such_model', image)


def test_a_config_classifies(run, image):
    result = inference_model(str(run / 'config.py'), image, pretrained=str(run / 'epoch_1.pth'))
    assert result['pred_class'] == 'bee'
    config = Config.fromfile(run / 'config.py')
    assert inference_model(config, image, pretrained=str(run / 'epoch_1.pth'))['pred_label'] == 1


def test_names_mean_what_they_meant():
    assert ModelHub.get('resnet18_8xb32_in1k').config.model.backbone.depth == 18
    assert ModelHub.get('RESNET18_8xb32_in1k').name == 'resnet18_8xb32_in1k'
    accept_paths()
    assert ModelHub.get(Path(PRETRAIN).stem).config.model.type == 'MAE'


def test_what_is_not_there(tmp_path):
    for wrong in ('no/such/folder', 'nothing.pth', 'nothing.py'):
        with pytest.raises(
            FileNotFoundError, match=f'there is no config, work dir or checkpoint {wrong}'
        ):
            ModelHub.get(wrong)
    with pytest.raises(ValueError, match=r'resnet18_8xb32_in1; did you mean resnet18_8xb32_in1k\?'):
        ModelHub.get('resnet18_8xb32_in1')
    with pytest.raises(FileNotFoundError, match=f'{tmp_path} holds no checkpoint of a run'):
        ModelHub.get(tmp_path)
    torch.save(dict(state_dict=dict(a=torch.zeros(1))), tmp_path / 'weights.pth')
    with pytest.raises(ValueError, match=r'weights.pth stores no config.*name the config too'):
        ModelHub.get(tmp_path / 'weights.pth')


def _checkpoint(text: str) -> dict:
    return dict(meta=dict(cfg=text), state_dict={})


@pytest.mark.parametrize(
    'text',
    [
        'import os',
        'model = __import__("os").system("touch {planted}")',
        'model = dict(type=open("{planted}", "w"))',
        'model = dict(**dict(type="MAE"))',
        'model = {{**dict(type="MAE")}}',
        'model = [open("{planted}", "w") for _ in range(1)]',
        'model = dict(a=1).__class__',
        'model: dict = dict(type="MAE")',
        'model = eval',
        'model = dict(',
        'model = ' + '(' * 5000,
        'model = ' + '-' * 50000 + '1',
        'x = 9 ** 9 ** 9',
    ],
)
def test_a_stored_config_runs_nothing(tmp_path, text):
    """mmengine's reader would execute the text."""
    planted = tmp_path / 'planted'
    with pytest.raises(ValueError, match='c.pth is more than plain values, so it was not read'):
        stored_config(_checkpoint(text.format(planted=planted)), 'c.pth')
    assert not planted.exists()


@pytest.mark.parametrize(
    'model',
    [
        "dict(type='subprocess.Popen', args=['true'])",
        "dict(type='os.system', command='true')",
        "dict(type='MAE', backbone=dict(type='antigravity'))",
        "dict(type='MAE', neck=[dict(type='torch.hub.load')])",
        "dict(type='mmengine.mkdir_or_exist', dir_name='x')",
        'dict(type=5)',
    ],
)
def test_a_stored_config_names_parts_of_models_alone(model):
    """A registry would import any module that is the path of a type."""
    with pytest.raises(ValueError, match=r'c.pth names .*not part of mmpretrain or mae_plugin'):
        stored_config(_checkpoint(f'model = {model}'), 'c.pth')


def test_what_mmengine_dumps_is_read():
    """Every value is unchanged, without the settings of training."""
    text = Config.fromfile(ROOT / FINETUNE).pretty_text
    parsed = parse_config(text, 'c.pth')
    assert Config(parsed).to_dict() == Config.fromfile(ROOT / FINETUNE).to_dict()
    config = stored_config(_checkpoint(text), 'c.pth')
    assert set(config) == {'model', 'data_preprocessor', 'test_dataloader'}
    assert 'init_cfg' not in config.model.backbone and 'train_cfg' not in config.model
    assert (
        config.test_dataloader.dataset.pipeline == Config(parsed).test_dataloader.dataset.pipeline
    )
    own = Config(
        dict(model=tiny_config(), values=(1, -2.5, None, True, 'a', {'b': [1]}))
    ).pretty_text
    assert parse_config(own, 'c.pth')['values'] == (1, -2.5, None, True, 'a', {'b': [1]})


def test_a_damaged_checkpoint_is_passed_over(run, image, tmp_path):
    """The work dir has no config, so the config is that of the older checkpoint."""
    (tmp_path / 'epoch_1.pth').write_bytes((run / 'epoch_1.pth').read_bytes())
    (tmp_path / 'epoch_2.pth').write_bytes((run / 'epoch_1.pth').read_bytes()[:5000])
    (tmp_path / 'last_checkpoint').write_text('epoch_2.pth')
    assert inference_model(str(tmp_path), image)['pred_class'] == 'bee'
