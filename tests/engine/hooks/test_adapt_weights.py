"""A checkpoint of another architecture ends a run, and ``get_model``, with a one-line error."""

from types import SimpleNamespace

import pytest
import torch
from mae_plugin.engine import WeightsFitHook
from mae_plugin.models import adapt, check_weights
from mmengine.runner import BaseLoop, load_checkpoint
from mmengine.runner.checkpoint import load_state_dict
from mmpretrain import get_model
from mmpretrain.registry import MODELS

from ...conftest import FINETUNE, PRETRAIN, SMALL_FINETUNE, SMALL_PRETRAIN, run


@pytest.fixture(scope='module')
def wider(tmp_path_factory):
    """A pre-training checkpoint of ViT-S, where the configs below have ViT-Ti."""
    name = 'mae_vit-base-p16_8xb512-amp-coslr-300e_in1k'
    small = dict(arch='deit-small', img_size=64)
    model = get_model(
        name, backbone=small, neck=dict(decoder_embed_dim=64, decoder_depth=1, decoder_num_heads=2)
    )
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
    arguments = [
        '--data-root',
        imagenet,
        '--work-dir',
        tmp_path,
        '--no-validate',
        *how,
        '--cfg-options',
        *options,
    ]
    done = run('tools/train.py', config, *arguments, fails=True)
    sentence = done.stderr.splitlines()[-1]
    assert sentence.startswith('train.py: error: ') and len(sentence) < 600
    assert (
        f'{wider} does not fit' in sentence and 'tensors have another shape, the first' in sentence
    )


def test_get_model_refuses_it(wider):
    with pytest.raises(
        ValueError,
        match=r'does not fit MAE: it lacks neck\.decoder_blocks \(84\); 169 tensors have another '
        r'shape, the first backbone\.cls_token \(1, 1, 384\) instead of \(1, 1, 768\); ',
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
    arguments = [
        '--data-root',
        imagenet,
        '--work-dir',
        tmp_path,
        '--resume',
        tmp_path / 'alone.pth',
    ]
    done = run('tools/train.py', PRETRAIN, *arguments, '--cfg-options', *SMALL_PRETRAIN, fails=True)
    assert 'alone.pth holds weights alone' in done.stderr.splitlines()[-1]


@pytest.mark.parametrize('way', ['init_cfg', 'load_from'])
def test_vision_transformer_takes_other_channels_and_rectangles(build_tiny, tmp_path, way):
    """Weights for 3 channels and 2 x 8 patches load into an encoder of 13 channels and 8 x 4."""
    arch = dict(embed_dims=32, num_layers=2, num_heads=2, feedforward_channels=64)
    source = build_tiny(backbone=dict(img_size=(16, 64)))
    path = str(tmp_path / 'rgb.pth')
    torch.save(dict(state_dict=source.state_dict(), meta={}), path)
    init_cfg = (
        dict(type='Pretrained', prefix='backbone.', checkpoint=path) if way == 'init_cfg' else None
    )
    backbone = dict(
        type='VisionTransformer',
        arch=arch,
        img_size=(64, 32),
        patch_size=8,
        in_channels=13,
        out_type='raw',
    )
    head = dict(type='LinearClsHead', in_channels=32, num_classes=3)
    model = MODELS.build(
        dict(type='ImageClassifier', backbone=dict(**backbone, init_cfg=init_cfg), head=head)
    )
    hook, runner = WeightsFitHook(), SimpleNamespace(model=model, _load_from=path, _resume=False)
    runner._train_loop = type('Loop', (BaseLoop,), dict(run=None))(None, None)
    hook.before_run(runner)
    if way == 'init_cfg':
        model.init_weights()
    else:
        hook.after_load_checkpoint(runner, torch.load(path, weights_only=True))
        load_checkpoint(model, path)
    gray = torch.randn(2, 1, 64, 32)
    (features,) = model.backbone(gray.expand(-1, 13, -1, -1))
    # The source resizes its embedding per step, and has three channels.
    (expected,) = source.extract_feat(gray.expand(-1, 3, -1, -1))
    torch.testing.assert_close(features, expected, rtol=1e-4, atol=1e-4)
    runner._resume = True
    with pytest.raises(ValueError, match='another shape'):
        hook.after_load_checkpoint(runner, torch.load(path, weights_only=True))


def evaluated(model: torch.nn.Module, checkpoint: dict, trains: bool = False) -> None:
    """Checks a checkpoint as a Runner does that evaluates a model, or trains it."""
    loop = type('Loop', (BaseLoop,), dict(run=None))(None, None) if trains else None
    runner = SimpleNamespace(model=model, _load_from='pre.pth', _resume=False, _train_loop=loop)
    WeightsFitHook().after_load_checkpoint(runner, checkpoint)


def test_a_classifier_without_its_head_is_not_evaluated(build_tiny):
    """Formerly the accuracy of an untrained head was reported."""
    arch = dict(embed_dims=32, num_layers=2, num_heads=2, feedforward_channels=64)
    backbone = dict(type='VisionTransformer', arch=arch, img_size=32, patch_size=8)
    head = dict(type='LinearClsHead', in_channels=32, num_classes=3)
    neck = dict(type='ClsBatchNormNeck', input_features=32)
    model = MODELS.build(dict(type='ImageClassifier', backbone=backbone, neck=neck, head=head))
    pretrained = build_tiny()
    own = dict(state_dict=model.state_dict(), meta={})
    encoder = dict(state_dict=pretrained.state_dict(), meta={})
    sentence = (
        r'pre\.pth lacks head\.fc\.weight, head\.fc\.bias, so ImageClassifier would be evaluated '
        'with untrained'
    )
    with pytest.raises(ValueError, match=sentence):
        evaluated(model, encoder)
    # Training may start from the encoder, and MAE is evaluated by its encoder alone.
    evaluated(model, encoder, trains=True)
    evaluated(model, own)
    backbone_alone = {
        key: value for key, value in encoder['state_dict'].items() if key.startswith('backbone.')
    }
    evaluated(pretrained, dict(state_dict=backbone_alone, meta={}))
    # A linear probe may be folded into its linear layer.
    folded = {key: value for key, value in own['state_dict'].items() if not key.startswith('neck.')}
    evaluated(model, dict(state_dict=folded, meta={}))


def test_a_checkpoint_is_compared_with_the_model_once(build_tiny, monkeypatch):
    """The hook's check, which knows the file, replaces the one of the model's load hook."""
    model, calls = build_tiny(), []

    def compare(*args, **kwargs):
        calls.append(args)
        return adapt.compare(*args, **kwargs)

    monkeypatch.setattr(check_weights, 'compare', compare)
    checkpoint = dict(state_dict=model.state_dict(), meta={})
    evaluated(model, checkpoint)
    load_state_dict(model, checkpoint['state_dict'])
    assert len(calls) == 1
    load_state_dict(model, model.state_dict())
    assert len(calls) == 2
