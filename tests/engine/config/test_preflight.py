"""Tests the checks of a built Runner before the first step."""

from types import SimpleNamespace

import pytest
from mae_plugin.engine.config.preflight import _check_best, _check_crops, check_heads
from mmengine.config import Config


def _config(**dataset: object) -> Config:
    return Config(dict(train_dataloader=dict(dataset=dataset)))


def _crop(size: object, kind: str = 'LoadRandomCrop', name: str = 'scale') -> list[dict]:
    return [{'type': kind, name: size}, dict(type='PackInputs')]


def test_crops_that_patches_do_not_tile(build_tiny):
    """70 x 70 by 8 ended in a traceback at the first step, also in wrapped datasets."""
    model = build_tiny()
    for dataset in (
        dict(pipeline=_crop(70)),
        dict(dataset=dict(pipeline=_crop(70, 'CenterCrop', 'crop_size'))),
    ):
        with pytest.raises(
            ValueError, match='crops of train_dataloader.*70 x 70.*patches of 8 x 8.*72 x 72'
        ):
            _check_crops(_config(**dataset), model)
    with pytest.raises(ValueError, match='32 x 20'):
        _check_crops(_config(pipeline=_crop((32, 20))), model)


def test_crops_of_another_size_than_the_positions(build_tiny, monkeypatch):
    """Training with ``img_size=96`` and crops of 64 logged nothing."""
    messages = []
    monkeypatch.setattr(
        'mae_plugin.engine.config.preflight.print_log', lambda text, logger: messages.append(text)
    )
    model = build_tiny()
    _check_crops(_config(pipeline=_crop(32)), model)
    assert messages == []
    _check_crops(_config(pipeline=_crop(64)), model)
    assert 'Crops of 64 x 64 pixels' in messages[0] and 'img_size=(32, 32)' in messages[0]
    # Crops of unknown size raise no error.
    _check_crops(_config(pipeline=[dict(type='Resize', scale=70)]), model)
    _check_crops(_config(), SimpleNamespace())
    assert len(messages) == 1


@pytest.mark.parametrize(
    ('changes', 'message'),
    [
        (
            dict(
                backbone=dict(
                    arch=dict(embed_dims=32, num_layers=1, num_heads=3, feedforward_channels=64)
                )
            ),
            r'backbone\.layers\.0\.attn has a width of 32, which is not a multiple of its 3 heads',
        ),
        (
            dict(neck=dict(decoder_num_heads=3)),
            r'decoder_blocks\.0\.attn has a width of 16, which is not a multiple of its 3 heads',
        ),
    ],
)
def test_heads_that_do_not_divide_the_width(build_tiny, changes, message):
    check_heads(build_tiny())
    with pytest.raises(ValueError, match=message):
        check_heads(build_tiny(**changes))


def test_the_best_checkpoint_by_a_metric_that_nobody_computes():
    """The run ended in a KeyError after the first validation."""

    def config(best: object, **more: object) -> Config:
        more = dict(val_cfg=dict(), val_evaluator=dict(type='Accuracy', topk=(1,))) | more
        return Config(dict(default_hooks=dict(checkpoint=dict(save_best=best)), **more))

    probe = dict(val_cfg=dict(type='ProbeLoop'), val_evaluator=[])
    for best, more in (
        ('accuracy/top1', {}),
        ('auto', {}),
        (None, {}),
        ('probe/knn_top1', probe),
        ('x/y', {}),
    ):
        if best == 'x/y':
            more = dict(val_cfg=None)
        _check_best(config(best, **more))
    with pytest.raises(
        ValueError,
        match='save_best=acc/top1 is computed by no evaluator; names begin with accuracy/',
    ):
        _check_best(config('acc/top1'))
    with pytest.raises(ValueError, match='names begin with probe/'):
        _check_best(config(['probe/knn_top1', 'accuracy/top1'], **probe))
