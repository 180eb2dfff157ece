"""Tests that evaluation on several ranks needs no disk."""

import pytest
import torch
from mae_plugin.cli.errors import SetupErrors
from mae_plugin.engine import LenientLoggerHook
from mmengine.evaluator import Evaluator
from mmengine.runner import BaseLoop
from mmengine.visualization import Visualizer
from mmpretrain.evaluation import Accuracy
from mmpretrain.structures import DataSample

from ...processes import FORK


class Runner:
    """Imitates a Runner with the loop of a test whose images two ranks share."""

    visualizer = Visualizer()
    timestamp = 'now'
    _val_loop = dict(type='ValLoop')

    def __init__(self, work_dir, metric: Accuracy) -> None:
        self._log_dir = self.work_dir = str(work_dir)
        loop = type('Loop', (BaseLoop,), dict(run=None, evaluator=Evaluator(metric)))
        self._test_loop = loop(None, None)


def sample(label: int, predicted: int) -> dict:
    score = torch.nn.functional.one_hot(torch.tensor(predicted), 3).float()
    return (
        DataSample().set_gt_label(label).set_pred_score(score).set_pred_label(predicted).to_dict()
    )


def evaluate(rank, folder, hook, collect_dir, results) -> None:
    """Evaluates two images on each of two ranks; the last one is padding and wrong."""
    torch.set_num_threads(1)
    torch.distributed.init_process_group(
        'gloo', f'file://{folder}/meeting', rank=rank, world_size=2
    )
    metric = Accuracy()
    # mmpretrain's metrics take this from Metric, and their own arguments leave it out.
    metric.collect_dir = collect_dir
    runner = Runner(folder, metric)
    hook.before_run(runner)
    evaluator = runner._test_loop.evaluator
    try:
        evaluator.process(
            [sample(1, 1), sample(2, 0)] if rank == 0 else [sample(0, 0), sample(1, 2)]
        )
        results.put(evaluator.evaluate(3)['accuracy/top1'])
    except OSError as error:
        results.put(type(error).__name__)
        raise SystemExit from None


@pytest.mark.parametrize('kind', [LenientLoggerHook, SetupErrors])
def test_a_disk_that_cannot_be_written(tmp_path, monkeypatch, kind):
    """mmengine exchanged files in .dist_test; one rank ended, and the other one hung."""
    (tmp_path / '.dist_test').touch()
    monkeypatch.chdir(tmp_path)
    assert run_ranks(tmp_path, kind()) == [pytest.approx(200 / 3)] * 2


def test_a_folder_of_ones_own_is_used(tmp_path):
    assert (
        run_ranks(tmp_path, SetupErrors(), str(tmp_path / 'file' / 'collected'))
        == [pytest.approx(200 / 3)] * 2
    )
    (tmp_path / 'meeting').unlink()
    (tmp_path / 'taken').touch()
    assert run_ranks(tmp_path, SetupErrors(), str(tmp_path / 'taken')) == ['FileExistsError'] * 2


def run_ranks(folder, hook, collect_dir=None) -> list:
    results = FORK.SimpleQueue()
    ranks = [
        FORK.Process(target=evaluate, args=(rank, folder, hook, collect_dir, results))
        for rank in range(2)
    ]
    for rank in ranks:
        rank.start()
    for rank in ranks:
        rank.join(60)
    for rank in ranks:
        rank.kill()
    found = []
    while not results.empty():
        found.append(results.get())
    return found
