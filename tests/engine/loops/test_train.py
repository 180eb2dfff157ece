"""Tests that an interrupted and resumed run has the same losses and weights, bit for bit."""

import multiprocessing
import random
import tarfile
import uuid

import numpy as np
import pytest
import torch
from mae_plugin.engine import AutoAmpOptimWrapper
from mae_plugin.engine.loops.sampler import ResumableSampler, SeededDataset
from mae_plugin.engine.loops.seeding import seed_for
from mmengine.config import Config
from mmengine.hooks import Hook
from mmengine.runner import Runner
from mmpretrain.registry import OPTIM_WRAPPERS

from ...conftest import PRETRAIN, ROOT, SMALL_PRETRAIN, run, tiny_config

STEPS = 10  # two epochs of five steps; 23 images, four at a time, so an epoch drops some


class Losses(Hook):
    """Records every loss; interrupts the run after a step as a crash would."""

    def __init__(self, stop_after: int | None = None) -> None:
        self.of_step: dict[int, float] = {}
        self.stop_after = stop_after

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None):
        self.of_step[runner.iter] = outputs['loss'].item()

    def before_train_iter(self, runner, batch_idx, data_batch=None):
        if runner.iter == self.stop_after:
            raise KeyboardInterrupt


def losses_of(runner, stop_after=None) -> dict[int, float]:
    """Trains, up to a step if ``stop_after`` is given; returns the losses by step."""
    losses = Losses(stop_after)
    runner.register_hook(losses)
    if stop_after is None:
        runner.train()
    else:
        with pytest.raises(KeyboardInterrupt):
            runner.train()
    return losses.of_step


def train(
    images,
    work_dir,
    *,
    by_epoch=True,
    workers=0,
    interval=3,
    stop_after=None,
    resume=False,
    **changes,
):
    """Trains a tiny MAE with all sources of randomness; returns losses by step, and weights."""
    cfg = Config.fromfile(ROOT / PRETRAIN)
    cfg.model = dict(
        tiny_config(backbone=dict(drop_path_rate=0.2)),
        data_preprocessor=cfg.model.data_preprocessor,
    )
    cfg.train_dataloader.update(batch_size=4, num_workers=workers, persistent_workers=workers > 0)
    cfg.train_dataloader.dataset.update(data_root=str(images), data_prefix='')
    cfg.train_dataloader.dataset.pipeline[0].scale = 32
    cfg.train_cfg = (
        dict(type='ResumableEpochLoop', max_epochs=2)
        if by_epoch
        else dict(type='ResumableIterLoop', max_iters=STEPS)
    )
    cfg.default_hooks.checkpoint.update(interval=interval, by_epoch=False, max_keep_ckpts=2)
    cfg.merge_from_dict(
        dict(
            work_dir=str(work_dir),
            experiment_name=uuid.uuid4().hex,
            resume=resume,
            test_dataloader=None,
            test_cfg=None,
        )
    )
    cfg.test_evaluator = None
    cfg.merge_from_dict({'param_scheduler.warmup': 1, 'auto_scale_lr.enable': False})
    cfg.merge_from_dict(changes)
    runner = Runner.from_cfg(cfg)
    losses = losses_of(runner, stop_after)
    # torch takes five seconds for each that it ends itself when a data loader is collected.
    for worker in multiprocessing.active_children():
        worker.terminate()
    return losses, runner.model.state_dict()


def assert_identical(one, other):
    assert one.keys() == other.keys()
    assert all(torch.equal(one[key], other[key]) for key in one)


@pytest.mark.parametrize('by_epoch', [True, False])
@pytest.mark.parametrize('workers', [0, 2])
def test_resumes_exactly(images, tmp_path, by_epoch, workers):
    """Interrupts in the first epoch, at its end and in the second, with and without workers."""
    losses, weights = train(images, tmp_path / 'whole', by_epoch=by_epoch)
    assert len(set(losses.values())) == STEPS
    for stop_after in (4, 5, 8):
        work_dir = tmp_path / f'stopped {stop_after}'
        first, _ = train(
            images, work_dir, by_epoch=by_epoch, workers=workers, stop_after=stop_after
        )
        rest, resumed = train(images, work_dir, by_epoch=by_epoch, workers=workers, resume=True)
        assert first == {step: losses[step] for step in range(stop_after)}
        start = stop_after // 3 * 3
        assert rest == {step: losses[step] for step in range(start, STEPS)}
        assert_identical(resumed, weights)


@OPTIM_WRAPPERS.register_module()
class Float16OnCPU(AutoAmpOptimWrapper):
    """Imitates AutoAmpOptimWrapper on a GPU without bfloat16; its scale starts too high."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.loss_scaler = torch.amp.GradScaler('cpu', init_scale=2.0**24, growth_interval=2)

    def optim_context(self, model):
        return torch.autocast('cpu', torch.float16)


def test_resumes_exactly_with_a_loss_scaler(images, tmp_path):
    """Resumes scale and growth of the loss scaler, which decide about skipped updates."""
    changes = {'optim_wrapper.type': 'Float16OnCPU'}
    losses, weights = train(images, tmp_path / 'whole', **changes)
    train(images, tmp_path / 'run', stop_after=7, **changes)
    scaler = torch.load(tmp_path / 'run' / 'iter_6.pth', weights_only=True)['optimizer'][
        'loss_scaler'
    ]
    assert scaler['scale'] < 2.0**24
    rest, resumed = train(images, tmp_path / 'run', resume=True, **changes)
    assert rest == {step: losses[step] for step in range(6, STEPS)}
    assert_identical(resumed, weights)


def test_resumes_exactly_from_tar_files(images, tmp_path):
    """Uses several crops per image, and a broken image that is replaced by another one."""
    folder = tmp_path / 'shards'
    folder.mkdir()
    paths = sorted(images.rglob('*.jpg'))
    for name, part in (('a', paths[:10]), ('b', paths[10:])):
        with tarfile.open(folder / f'{name}.tar', 'w') as file:
            for path in part:
                file.add(path, path.name)
            file.add(__file__, f'{name}/broken.jpg')
    changes = {
        'train_dataloader.sampler.repeats': 2,
        'train_dataloader.dataset.pipeline.0.max_skipped': 0.5,
    }
    losses, weights = train(folder, tmp_path / 'whole', **changes)
    assert 'broken.jpg' in next((tmp_path / 'whole').glob('*/*.log')).read_text()
    train(folder, tmp_path / 'run', workers=2, stop_after=8, **changes)
    rest, resumed = train(folder, tmp_path / 'run', workers=2, resume=True, **changes)
    assert rest == {step: losses[step] for step in range(6, 12)}
    assert_identical(resumed, weights)


def test_resuming_at_the_end_of_an_epoch(images, tmp_path):
    """Ends the epoch after resuming at its last step, instead of repeating it."""
    _, weights = train(images, tmp_path / 'whole')
    train(images, tmp_path / 'run', interval=5, stop_after=5)
    losses, resumed = train(images, tmp_path / 'run', resume=True)
    assert list(losses) == list(range(5, STEPS))
    assert_identical(resumed, weights)


def test_a_checkpoint_brings_its_seed(images, tmp_path):
    losses, _ = train(images, tmp_path / 'whole', **{'randomness.seed': 5})
    train(images, tmp_path / 'run', stop_after=4, **{'randomness.seed': 5})
    rest, _ = train(images, tmp_path / 'run', resume=True)
    assert rest == {step: losses[step] for step in range(3, STEPS)}


def sampler(size: int, rank: int = 0, world_size: int = 1, **changes) -> ResumableSampler:
    result = ResumableSampler(range(size), seed=7, **changes)
    result.rank, result.world_size = rank, world_size
    return result


@pytest.mark.parametrize('world_size', [1, 2, 3])
def test_ranks_share_an_epoch(world_size):
    """Uses every image once, and as few as possible twice, in an order without ranks."""
    (order,) = [list(sampler(10))]
    shares = [list(sampler(10, rank, world_size)) for rank in range(world_size)]
    assert len({len(share) for share in shares} | {len(sampler(10, 0, world_size))}) == 1
    dealt = [address for turn in zip(*shares, strict=True) for address in turn]
    assert sorted(index for index, *_ in order) == list(range(10))
    assert dealt == (order + order)[: len(dealt)] and len(dealt) < 10 + world_size


def test_position_counts_samples_over_all_ranks():
    """Continues on three ranks where two stopped."""
    whole = list(sampler(12))
    rest = [sampler(12, rank, 3) for rank in range(3)]
    for part in rest:
        part.position = 6
    assert [address for turn in zip(*rest, strict=True) for address in turn] == whole[6:]


def test_orders():
    ours = sampler(8)
    first = list(ours)
    ours.set_epoch(1)
    second = list(ours)
    assert {epoch for _, epoch, *_ in second} == {1}
    assert [index for index, *_ in first] != [index for index, *_ in second]
    assert [index for index, *_ in sampler(8, shuffle=False)] == list(range(8))
    endless = iter(sampler(8, endless=True))
    assert [next(endless) for _ in range(16)] == first + second
    late = sampler(8, endless=True)
    late.position = 11
    assert next(iter(late)) == second[3]


def test_repeats():
    """Yields three consecutive crops per image; three epochs together take all images."""
    epochs = []
    for epoch in range(3):
        ours = sampler(8, repeats=3)
        ours.set_epoch(epoch)
        epochs.append(list(ours))
    assert [len(dealt) for dealt in epochs] == [8] * 3 == [len(sampler(8, repeats=3))] * 3
    assert len({address for dealt in epochs for address in dealt}) == 24
    assert {index for dealt in epochs for index, *_ in dealt} == set(range(8))
    assert [index for index, *_ in epochs[0][:6]] == [epochs[0][0][0]] * 3 + [epochs[0][3][0]] * 3
    assert [repeat for _, _, repeat, _ in epochs[0]] == [0, 1, 2, 0, 1, 2, 0, 1]
    shares = [list(sampler(12, rank, 2, repeats=3)) for rank in range(2)]
    assert [len(share) for share in shares] == [6, 6]
    for share in shares:
        assert [index for index, *_ in share] == [share[0][0]] * 3 + [share[3][0]] * 3
    assert not {index for index, *_ in shares[0]} & {index for index, *_ in shares[1]}
    late = sampler(12, 1, 2, repeats=3)
    late.position = 6
    assert list(late) == shares[1][3:]
    with pytest.raises(ValueError, match='repeats=0 is out of range'):
        sampler(8, repeats=0)


def test_a_sample_depends_on_its_address_alone():
    class Draws(torch.utils.data.Dataset):
        def __len__(self):
            return 4

        def __getitem__(self, index):
            return index, torch.rand(()).item(), np.random.rand(), random.random()

    dataset = SeededDataset(Draws())
    one, two, other = dataset[2, 0, 0, 7], dataset[2, 0, 0, 7], dataset[2, 1, 0, 7]
    assert one == two and all(a != b for a, b in zip(one[1:], other[1:], strict=True))
    assert dataset[3][0] == 3
    assert (
        len({seed_for('sample', 0, 1, 2), seed_for('sample', 0, 2, 1), seed_for('step', 0, 1, 2)})
        == 3
    )


KILLS_ITS_WORKER = """
import os, signal
from mae_plugin.data import IndexedImages
from mmpretrain.registry import DATASETS

@DATASETS.register_module()
class KillsItsWorker(IndexedImages):
    def get_data_info(self, idx):
        if idx == 7:
            os.kill(os.getpid(), signal.SIGKILL)
        return super().get_data_info(idx)
"""


def test_a_killed_worker_is_one_sentence(images, tmp_path, monkeypatch):
    """Kills a worker as the system does when memory is short."""
    (tmp_path / 'kills.py').write_text(KILLS_ITS_WORKER)
    (tmp_path / 'config.py').write_text(
        f"_base_ = '{ROOT / PRETRAIN}'\ncustom_imports = dict(imports=['mae_plugin', 'kills'])\n"
        "train_dataloader = dict(dataset=dict(type='KillsItsWorker', data_prefix=''))\n"
    )
    monkeypatch.setenv('PYTHONPATH', f'{tmp_path}:{ROOT}')
    command = [
        'tools/train.py',
        tmp_path / 'config.py',
        '--data-root',
        images,
        '--work-dir',
        tmp_path / 'run',
    ]
    options = ['--cfg-options', *SMALL_PRETRAIN, 'train_dataloader.num_workers=2']
    done = run(*command, *options, fails=True)
    assert (
        'error: a worker of the data loader was killed by SIGKILL, by the system perhaps'
        in done.stderr
    )


@pytest.mark.parametrize(
    'change', [{'sampler.type': 'RepeatAugSampler'}, {'batch_sampler': dict(type='BatchSampler')}]
)
def test_other_samplers_are_refused(images, tmp_path, change):
    change = {f'train_dataloader.{key}': value for key, value in change.items()}
    with pytest.raises(
        ValueError, match='a resumable loop cannot start within the order of .*; use DefaultSampler'
    ):
        train(images, tmp_path, **change)
