"""A checkpoint of another architecture ends a run, and `get_model`, with a sentence."""

import pytest
import torch
from mmpretrain import get_model

from ..conftest import FINETUNE, PRETRAIN, SMALL_FINETUNE, SMALL_PRETRAIN, run


@pytest.fixture(scope='module')
def wider(tmp_path_factory):
    """A pre-training checkpoint of ViT-S where the configs below have ViT-Ti."""
    name = 'mae_vit-base-p16_8xb512-amp-coslr-300e_in1k'
    small = dict(arch='deit-small', img_size=64)
    model = get_model(name, backbone=small, neck=dict(decoder_embed_dim=64, decoder_depth=1, decoder_num_heads=2))
    path = tmp_path_factory.mktemp('weights') / 'wider.pth'
    torch.save(dict(state_dict=model.state_dict(), meta=dict(epoch=1, iter=1)), path)
    return path


@pytest.mark.parametrize(
    ('config', 'options', 'by'),
    [
        (PRETRAIN, SMALL_PRETRAIN, '--resume'),
        (PRETRAIN, SMALL_PRETRAIN, 'load_from={}'),
        (FINETUNE, SMALL_FINETUNE, '--pretrained'),
        (FINETUNE, [*SMALL_FINETUNE, 'model.backbone.init_cfg=None'], 'load_from={}'),
    ],
)
def test_runs_refuse_it(wider, imagenet, tmp_path, config, options, by):
    how = [by, wider] if by.startswith('--') else []
    options = [*options, *([] if how else [by.format(wider)])]
    arguments = ['--data-root', imagenet, '--work-dir', tmp_path, '--no-validate', *how, '--cfg-options', *options]
    done = run('tools/train.py', config, *arguments, fails=True)
    sentence = done.stderr.splitlines()[-1]
    assert sentence.startswith('train.py: error: ') and len(sentence) < 600
    assert f'{wider} does not fit' in sentence and 'tensors have another shape, the first' in sentence


def test_get_model_refuses_it(wider):
    with pytest.raises(
        ValueError, match=r'does not fit MAE: it lacks neck\.decoder_blocks \(84\); the model has no|shape'
    ):
        get_model('mae_vit-base-p16_8xb512-amp-coslr-300e_in1k', pretrained=str(wider))


def test_weights_alone_cannot_be_resumed(imagenet, tmp_path):
    small = dict(arch='deit-tiny', img_size=64)
    model = get_model(
        'mae_vit-base-p16_8xb512-amp-coslr-300e_in1k',
        backbone=small,
        neck=dict(decoder_embed_dim=64, decoder_depth=1, decoder_num_heads=2),
    )
    torch.save(model.state_dict(), tmp_path / 'alone.pth')
    arguments = ['--data-root', imagenet, '--work-dir', tmp_path, '--resume', tmp_path / 'alone.pth']
    done = run('tools/train.py', PRETRAIN, *arguments, '--cfg-options', *SMALL_PRETRAIN, fails=True)
    assert 'alone.pth holds weights alone' in done.stderr.splitlines()[-1]
