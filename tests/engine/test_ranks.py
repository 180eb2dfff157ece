"""Tests that two processes, with DDP and sharded, train as one does."""

import os
import subprocess
import sys

import pytest
import torch

from ..conftest import ROOT, write_jpegs
from .ranks import STEPS, probe, train


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp('ranks')
    # Five whole updates of four images, three left over.
    write_jpegs(folder / 'images', 23)
    for i in range(2):
        write_jpegs(folder / 'classes' / str(i), 13, seed=i)
    return folder


@pytest.fixture(scope='module')
def alone(folder):
    """Runs ten updates of four images in this process."""
    return train(folder / 'images', folder / 'alone', batch_size=4, **probe(folder / 'classes'))


@pytest.fixture(scope='module')
def found(folder):
    """Returns the records of two processes in each of their runs."""
    command = [
        sys.executable,
        '-m',
        'torch.distributed.run',
        '--standalone',
        '--nproc-per-node',
        '2',
    ]
    command += ['-m', 'tests.engine.ranks', folder / 'images', folder]
    environment = {**os.environ, 'OMP_NUM_THREADS': '1', 'PYTHONPATH': str(ROOT)}
    done = subprocess.run(
        list(map(str, command)),
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    return torch.load(folder / 'found.pt')


def distance(one: dict, other: dict) -> float:
    assert one.keys() == other.keys()
    return max(float((one[key] - other[key]).abs().max()) for key in one)


def test_accumulation_equals_a_larger_batch(folder, alone):
    """Compares four times one image with one time four images."""
    notes, weights, _ = train(
        folder / 'images', folder / 'accumulating', batch_size=1, accumulate=4
    )
    assert distance(weights, alone[1]) < 1e-6
    losses = list(notes.losses.values())
    assert len(losses) == 4 * STEPS
    means = [sum(losses[i : i + 4]) / 4 for i in range(0, len(losses), 4)]
    assert means == pytest.approx(list(alone[0].losses.values()), abs=1e-6)


@pytest.mark.parametrize('name', ['ddp', 'sharded'])
def test_two_processes_equal_one(found, alone, name):
    """Compares two times two images with four; both ranks get whole weights."""
    (run,) = found[name]
    assert run['losses'] == pytest.approx(alone[0].losses, abs=1e-6)
    assert max(distance(weights, alone[1]) for weights in run['weights']) < 1e-6
    # Not because nothing was learnt.
    assert distance(found['ddp, NaN'][0]['weights'][0], alone[1]) > 1e-4


@pytest.mark.parametrize('name', ['ddp accumulating', 'sharded accumulating'])
def test_two_processes_accumulate(found, alone, name):
    assert max(distance(weights, alone[1]) for weights in found[name][0]['weights']) < 1e-6


@pytest.fixture(scope='module')
def alone_lacking_data(folder):
    return train(folder / 'images', folder / 'alone, no data', batch_size=4, lacks_data=True)[1]


@pytest.mark.parametrize('name', ['ddp, no data', 'sharded, no data'])
def test_every_patch_with_data_weighs_the_same(found, alone, alone_lacking_data, name):
    """Means of the ranks' means were off by up to a half for images with missing rows."""
    assert (
        max(distance(weights, alone_lacking_data) for weights in found[name][0]['weights']) < 1e-6
    )
    assert distance(alone_lacking_data, alone[1]) > 1e-4


def test_accumulated_steps_weigh_by_their_data(folder, alone_lacking_data):
    _, weights, _ = train(
        folder / 'images',
        folder / 'accumulating, no data',
        batch_size=1,
        accumulate=4,
        lacks_data=True,
    )
    assert distance(weights, alone_lacking_data) < 1e-6


def test_no_message_before_the_sum_is_whole(found):
    """Sends one message per update, as the gradients of the tiny model fit into one."""
    assert found['ddp'][0]['all_reduces'] == STEPS
    assert len(found['ddp accumulating'][0]['losses']) == 2 * STEPS
    assert found['ddp accumulating'][0]['all_reduces'] == STEPS


def test_no_two_ranks_draw_the_same(found):
    """Compares images and random numbers, from which masks are drawn."""
    for name in ('pixels', 'draws'):
        values = [value for of_rank in found['ddp'][0][name] for value in of_rank]
        assert len(set(values)) == len(values) == 2 * STEPS


@pytest.mark.parametrize('name', ['ddp', 'sharded'])
def test_two_processes_probe_as_one(found, alone, name):
    """Shares a bank of 22 and 26 queries, with the numbers of one process."""
    assert len(alone[0].probes) == 2
    for probes in found[name][0]['probes']:
        assert probes == alone[0].probes
    assert len({value for metrics in alone[0].probes for value in metrics.values()}) > 1


@pytest.mark.parametrize('name', ['ddp, NaN', 'sharded, NaN'])
def test_nan_on_one_rank_is_skipped_by_all(found, name):
    """Spoils a gradient in one step and a loss in another, on the second process."""
    (run,) = found[name]
    assert [step for step, skipped in run['skipped'].items() if skipped] == [3, 7]
    first, second = run['weights']
    assert distance(first, second) == 0
    assert all(value.isfinite().all() for value in first.values())
    assert run['losses'][4] == pytest.approx(found['ddp, NaN'][0]['losses'][4], abs=1e-6)


@pytest.mark.parametrize(('name', 'steps'), [('stopped', STEPS), ('sharded, stopped', 2 * STEPS)])
def test_all_stop_after_the_same_step(found, alone, name, steps):
    """Signals one process; resumes sharded after DDP, and the other way with more steps."""
    first, rest = found[name]
    assert first['code'] == 75 and rest['code'] == 0
    stopped = len(first['losses'])
    assert 3 <= stopped <= 5
    assert list(rest['losses']) == list(range(stopped * steps // STEPS, steps))
    assert max(distance(weights, alone[1]) for weights in rest['weights']) < 1e-6


def test_training_ends_when_going_back_does_not_help(folder, found):
    """Rolls back once to the end of the first epoch, and then ends."""
    (run,) = found['NaN for good']
    assert run['code'] == 1
    (log,) = (file.read_text() for file in (folder / 'NaN for good').glob('*/*.log'))
    assert f'Rolling back to {folder}/NaN for good/epoch_1.pth, to continue with other data' in log
    (end,) = (line for line in log.splitlines() if 'Training ends' in line)
    for part in (
        'at iteration',
        'the loss of rank 1',
        'lr 0.0',
        'loss scale 1',
        'epoch_1.pth did not help',
    ):
        assert part in end


def test_the_probe_evaluates_with_the_average_of_all_ranks(found):
    """Columns 0, 3, 6, 9 times one and two: means 4.5 and 9, variances 15 and 60."""
    for statistics in found['BatchNorm']:
        torch.testing.assert_close(statistics['running_mean'], torch.tensor([6.75, 8.25, 9.75]))
        torch.testing.assert_close(statistics['running_var'], torch.full((3,), 37.5))
        assert statistics['num_batches_tracked'] == 1
