"""Collects the results of an evaluation from all ranks without the disk."""

from __future__ import annotations

from mmengine.dist import get_world_size
from mmengine.runner import Runner

from ...utils._compat.mmengine import built_loop


def collect_without_disk(runner: Runner) -> None:
    """Makes the metrics of a Runner collect the results of all ranks by communication.

    By default, mmengine's metrics write results to files in ``.dist_test`` in the current folder.
    On a full or read-only disk, or without a folder that all ranks share, evaluation would end on
    one rank and hang on the others. A metric with ``collect_dir`` keeps its folder.
    """
    if get_world_size() == 1:
        return
    for name in ('val', 'test'):
        loop = built_loop(runner, name)
        for metric in getattr(getattr(loop, 'evaluator', None), 'metrics', ()):
            if metric.collect_device == 'cpu' and metric.collect_dir is None:
                # With 'gpu' mmengine communicates through the present backend, also through gloo.
                metric.collect_device = 'gpu'
