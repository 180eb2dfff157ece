"""Tests the state of a run: plain data in checkpoints, checks on reading, and migration."""

import copy
import json

import pytest
import torch
from mae_plugin.engine.loops.total_batch import TotalBatch
from mae_plugin.engine.state import RunState, TrainingData

from .loops.test_train import STEPS, assert_identical, train

FULL = RunState(
    epoch=3,
    samples=20,
    rollbacks=2,
    last_validation=(3, 15),
    extra_checkpoint='iter_15.pth',
    total_batch=TotalBatch(8, 512, 1, 4),
    data=TrainingData(23, 'f888'),
    optimizer='AdamW',
)
OLD = dict(
    meta=dict(
        epoch=3,
        iter=15,
        batch=[8, 512, 1, 4],
        data=dict(samples=23, names='f888'),
        optimizer='AdamW',
    ),
    message_hub=dict(
        runtime_info=dict(
            iter=14,
            data_position=(3, 20),
            times_gone_back=2,
            last_validated_at=(3, 15),
            checkpoint_between='iter_15.pth',
        )
    ),
)


def stored(**changes: object) -> dict:
    """Returns a checkpoint with a changed state."""
    return dict(meta=dict(mae_plugin={**FULL.to_plain(), **changes}))


@pytest.mark.parametrize('state', [RunState(), FULL])
def test_round_trip(state):
    plain = json.loads(json.dumps(state.to_plain()))
    assert plain == state.to_plain() and plain['version'] == 1
    assert RunState.from_checkpoint(dict(meta=dict(mae_plugin=plain))) == state


def test_numbers_of_the_total_batch_have_names():
    expected = dict(gpus=8, batch_size=512, accumulate=1, repeats=4)
    assert FULL.to_plain()['total_batch'] == expected


def test_migration():
    checkpoint = copy.deepcopy(OLD)
    assert RunState.from_checkpoint(checkpoint) == FULL
    assert checkpoint['meta'].keys() == {'epoch', 'iter', 'mae_plugin'}
    assert checkpoint['message_hub'] == dict(runtime_info=dict(iter=14))
    # The second reading takes the migrated state.
    assert RunState.from_checkpoint(checkpoint) == FULL


def test_migration_of_parts():
    """Three numbers of the batch, before `repeats`; mmengine's own checkpoints; `meta` alone."""
    batch = RunState.from_checkpoint(dict(meta=dict(batch=[2, 4, 1]))).total_batch
    assert batch == TotalBatch(2, 4, 1, 1)
    own = dict(meta=dict(epoch=1, iter=5), message_hub=dict(runtime_info=dict(epoch=0)))
    assert RunState.from_checkpoint(own) == RunState()
    assert RunState.from_checkpoint(dict(meta=dict(data={}))) == RunState()


@pytest.mark.parametrize(
    ('checkpoint', 'sentence'),
    [
        (dict(meta=dict(mae_plugin=[1])), r"holds \[1\] as meta\['mae_plugin'\], not the state"),
        (stored(version=2), 'newer version of mae_plugin .*; update mae_plugin to resume from it'),
        (stored(version=None), r"holds None as meta\['mae_plugin'\]\['version'\]"),
        (stored(epoch='3'), r"holds '3' as meta\['mae_plugin'\]\['epoch'\], not a whole number"),
        (stored(samples=-4), r"holds -4 as .*\['samples'\], not a whole number of at least 0"),
        (stored(rollbacks=True), r"holds True as .*\['rollbacks'\]"),
        (stored(last_validation=[1]), r'holds \[1\] as last_validation, not two whole numbers'),
        (stored(extra_checkpoint='../a.pth'), r"\['extra_checkpoint'\], not a file name"),
        (stored(total_batch=[8, 512]), r"\['total_batch'\], not named numbers"),
        (stored(total_batch=dict(gpus=0)), r"\['total_batch'\]\['gpus'\], not .* at least 1"),
        (stored(data=23), r"\['data'\], not a description of data"),
        (stored(data=dict(samples=1, digest=5)), r"holds 5 as .*\['digest'\], not a string"),
        (stored(optimizer=1), r"holds 1 as .*\['optimizer'\], not a string"),
        (dict(meta=dict(batch=[8, 4])), r"as meta\['batch'\], not the numbers of GPUs"),
        (
            dict(meta={}, message_hub=dict(runtime_info=dict(data_position=7))),
            'holds 7 as data_position, not two whole numbers',
        ),
    ],
)
def test_bad_values(checkpoint, sentence):
    with pytest.raises(ValueError, match=sentence):
        RunState.from_checkpoint(checkpoint)


def to_old_form(path) -> None:
    """Rewrites a checkpoint in the form from before the state had a key of its own."""
    checkpoint = torch.load(path, weights_only=True)
    meta, hub = checkpoint['meta'], checkpoint['message_hub']['runtime_info']
    state = meta.pop('mae_plugin')
    hub['data_position'] = (state['epoch'], state['samples'])
    meta['batch'] = list(state['total_batch'].values())
    meta['data'] = dict(samples=state['data']['samples'], names=state['data']['digest'])
    meta['optimizer'] = state['optimizer']
    torch.save(checkpoint, path)


@pytest.mark.parametrize('by_epoch', [True, False])
def test_older_checkpoints_resume_exactly(images, tmp_path, by_epoch):
    """Within the second epoch, so the position in the data counts."""
    losses, weights = train(images, tmp_path / 'whole', by_epoch=by_epoch)
    train(images, tmp_path / 'run', by_epoch=by_epoch, stop_after=8)
    to_old_form(tmp_path / 'run' / 'iter_6.pth')
    rest, resumed = train(images, tmp_path / 'run', by_epoch=by_epoch, resume=True)
    assert rest == {step: losses[step] for step in range(6, STEPS)}
    assert_identical(resumed, weights)
    meta = torch.load(tmp_path / 'run' / f'iter_{STEPS}.pth', weights_only=True)['meta']
    assert meta['mae_plugin']['version'] == 1 and 'batch' not in meta


def test_mmengines_checkpoint_hook_keeps_the_state(images, tmp_path):
    """The loop registers a RunStateHook where no checkpoint hook of this plugin does it."""
    hook = dict(_delete_=True, type='CheckpointHook', interval=3, by_epoch=False)
    changes = {'default_hooks.checkpoint': hook}
    losses, weights = train(images, tmp_path / 'whole', **changes)
    train(images, tmp_path / 'run', stop_after=8, **changes)
    rest, resumed = train(images, tmp_path / 'run', resume=True, **changes)
    assert rest == {step: losses[step] for step in range(6, STEPS)}
    assert_identical(resumed, weights)
