"""Tests resumable loops with data loaders that are objects instead of configs."""

import uuid

import pytest
import torch
from mae_plugin.data import IndexedImages
from mae_plugin.engine.loops.ready_loader import InexactLoader, config_of
from mmengine.dataset import DefaultSampler, default_collate
from mmengine.runner import Runner
from torch.utils.data import BatchSampler, DataLoader, RandomSampler, Subset, WeightedRandomSampler

from ...conftest import tiny_config
from ..hooks.test_check_data import as_folder
from .test_train import assert_identical, losses_of

PIPELINE = [dict(type='LoadRandomCrop', scale=32), dict(type='PackInputs')]
TRAIN_CFGS = [
    dict(type='ResumableEpochLoop', max_epochs=2),
    dict(type='ResumableIterLoop', max_iters=10),
]


@pytest.fixture(autouse=True)
def without_environment(monkeypatch):
    """Skips mmengine's query of compiler versions, which takes longer than the runs."""
    monkeypatch.setattr(Runner, '_log_env', lambda *_: None)


def settings(images, **changes):
    """Returns arguments of a data loader's config and of a DataLoader, without ``sampler``."""
    return dict(batch_size=4, drop_last=True, collate_fn=default_collate, **changes)


def build(images, **changes) -> DataLoader:
    dataset = IndexedImages(str(images), pipeline=PIPELINE)
    sampler = changes.pop('sampler', DefaultSampler(dataset, shuffle=True))
    return DataLoader(dataset, sampler=sampler, **settings(images, **changes))


def train(loader, work_dir, train_cfg, stop_after=None, **changes):
    """Trains a tiny MAE; returns the losses by step, and the Runner."""
    runner = Runner(
        model=dict(
            tiny_config(),
            data_preprocessor=dict(type='SelfSupDataPreprocessor', mean=[120], std=[60]),
        ),
        work_dir=str(work_dir),
        train_dataloader=loader,
        train_cfg=dict(train_cfg),
        optim_wrapper=dict(optimizer=dict(type='AdamW', lr=1e-3)),
        default_hooks=dict(checkpoint=dict(type='SafeCheckpointHook', interval=3, by_epoch=False)),
        default_scope='mmpretrain',
        randomness=dict(seed=0),
        experiment_name=uuid.uuid4().hex,
        **changes,
    )
    return losses_of(runner, stop_after), runner


@pytest.mark.parametrize('train_cfg', TRAIN_CFGS)
def test_a_data_loader_is_as_good_as_its_config(images, tmp_path, train_cfg):
    """Has the same losses, and resumes exactly within an epoch."""
    dataset = dict(type='IndexedImages', data_root=str(images), pipeline=PIPELINE)
    config = settings(
        images, num_workers=0, dataset=dataset, sampler=dict(type='DefaultSampler', shuffle=True)
    )
    expected, runner = train(config, tmp_path / 'config', train_cfg)
    assert len(expected) == 10
    loader = build(images)
    losses, ready = train(loader, tmp_path / 'ready', train_cfg)
    assert losses == expected
    assert_identical(ready.model.state_dict(), runner.model.state_dict())
    assert ready.train_dataloader.dataset.dataset is loader.dataset, 'the dataset is not copied'
    first, _ = train(build(images), tmp_path / 'stopped', train_cfg, stop_after=7)
    rest, _ = train(build(images), tmp_path / 'stopped', train_cfg, resume=True)
    assert first == {step: expected[step] for step in range(7)}
    assert rest == {step: expected[step] for step in range(6, 10)}


@pytest.mark.parametrize('train_cfg', TRAIN_CFGS)
def test_any_list_of_batches(images, tmp_path, train_cfg):
    """Keeps the order of batches; an interrupted run makes as many steps, on the same ones."""

    class Seen(list):
        """Records which of its items were taken."""

        def __iter__(self):
            for i in range(len(self)):
                order.append(i)
                yield self[i]

    order = []
    batches = Seen(build(images))
    assert len(batches) == 5
    losses, runner = train(batches, tmp_path / 'whole', train_cfg)
    assert order == [*range(5)] * 2 and len(losses) == 10
    assert isinstance(runner.train_dataloader, InexactLoader)
    assert runner.train_loop.state.total_batch is None
    train(batches, tmp_path / 'stopped', train_cfg, stop_after=8)
    rest, resumed = train(batches, tmp_path / 'stopped', train_cfg, resume=True)
    assert order[-5:] == [*range(5)] and rest == {step: losses[step] for step in range(6, 10)}
    assert_identical(resumed.model.state_dict(), runner.model.state_dict())


def test_which_loaders_have_a_config(images):
    dataset = IndexedImages(str(images), pipeline=PIPELINE)
    for loader, shuffle in (
        (DataLoader(dataset, 4, shuffle=True), True),
        (DataLoader(dataset, 4), False),
        (build(images, sampler=DefaultSampler(dataset, shuffle=False)), False),
        (
            Runner.build_dataloader(
                dict(dataset=dataset, batch_size=2, sampler=dict(type='InfiniteSampler')), seed=1
            ),
            True,
        ),
    ):
        config = config_of(loader)
        assert config['sampler'] == dict(type='DefaultSampler', shuffle=shuffle)
        assert (
            config['batch_size'] == loader.batch_size
            and config['dataset']['type']() is loader.dataset
        )
    config = config_of(
        DataLoader(dataset, 3, num_workers=2, persistent_workers=True, drop_last=True, timeout=9)
    )
    expected = dict(
        num_workers=2, persistent_workers=True, drop_last=True, timeout=9, pin_memory=False
    )
    assert {name: config[name] for name in expected} == expected

    class Stream(torch.utils.data.IterableDataset):
        def __iter__(self):
            yield from range(8)

    for loader in (
        [1, 2],
        DataLoader(Stream(), 2),
        DataLoader(dataset, sampler=WeightedRandomSampler([1.0] * 23, 23)),
        DataLoader(dataset, sampler=RandomSampler(dataset, replacement=True)),
        DataLoader(dataset, sampler=RandomSampler(dataset, num_samples=9)),
        DataLoader(dataset, batch_sampler=[[0, 1], [2]]),
        DataLoader(dataset, batch_size=None),
        DataLoader(dataset, 4, num_workers=1, worker_init_fn=print),
    ):
        assert config_of(loader) is None
    shuffled = config_of(
        DataLoader(dataset, batch_sampler=BatchSampler(RandomSampler(dataset), 2, True))
    )
    assert (shuffled['batch_size'], shuffled['drop_last'], shuffled['sampler']['shuffle']) == (
        2,
        True,
        True,
    )


def test_the_epoch_reaches_the_samplers_within(images):
    dataset = IndexedImages(str(images))
    loader = DataLoader(dataset, batch_sampler=BatchSampler(DefaultSampler(dataset), 2, True))
    inexact = InexactLoader(loader, 0)
    inexact.sampler.position = 8
    inexact.sampler.set_epoch(3)
    assert loader.batch_sampler.sampler.epoch == 3 and inexact.sampler.position == 0
    with pytest.raises(ValueError, match='train_dataloader is a list without a batch'):
        InexactLoader([], 0)
    assert len(inexact) == 11 and inexact.dataset is dataset and inexact.num_workers == 0


def test_a_probe_on_a_ready_loader(tmp_path):
    as_folder(tmp_path, 'train', 'abc'), as_folder(tmp_path, 'val', 'ac')
    common = dict(data_root=str(tmp_path), with_label=True)
    pipeline = [dict(type='LoadCenterCrop', scale=32), dict(type='PackInputs')]
    queries = IndexedImages(data_prefix='val', pipeline=pipeline, **common)
    bank = dict(type='IndexedImages', data_prefix='train', pipeline=pipeline, **common)

    def probe(loader, bank) -> dict:
        model = dict(tiny_config(), data_preprocessor=dict(type='SelfSupDataPreprocessor'))
        val_cfg = dict(type='ProbeLoop', bank=bank, k=3)
        arguments = dict(
            work_dir=str(tmp_path / 'work'), val_evaluator=[], experiment_name=uuid.uuid4().hex
        )
        return Runner(
            model, val_dataloader=loader, val_cfg=val_cfg, default_scope='mmpretrain', **arguments
        ).val()

    ready = DataLoader(queries, 4, collate_fn=default_collate)
    assert probe(ready, bank) == {'probe/knn_top1': 100, 'probe/linear_top1': 100}
    with pytest.raises(ValueError, match='set val_cfg.bank to the whole config of a dataset'):
        probe(ready, dict(data_prefix='train'))
    with pytest.raises(
        ValueError,
        match='val_dataloader is a list with an order of its own; a probe needs its config',
    ):
        probe([1], bank)
    part = DataLoader(Subset(queries, [0, 5]), 4, collate_fn=default_collate)
    assert probe(part, bank) == {'probe/knn_top1': 100, 'probe/linear_top1': 100}
