"""Collects the results of an evaluation from all ranks without the disk."""

from __future__ import annotations

from mmengine.dist import get_world_size
from mmengine.runner import Runner

from ...utils._compat.mmengine import built_loop


def collect_without_disk(runner: Runner) -> None:
    """Lets the metrics of a Runner collect what the ranks found by communication.

    mmengine's metrics write it to files below the current folder, ``.dist_test``, unless told
    otherwise. On a full or read-only disk, or without a folder that all ranks share, that ended the
    evaluation on one rank and left the others waiting. A metric with ``collect_dir`` keeps its
    folder.
    """
    if get_world_size() == 1:
        return
    # The loops of what this Runner does are built; others are still configs.
    for name in ('val', 'test'):
        loop = built_loop(runner, name)
        for metric in getattr(getattr(loop, 'evaluator', None), 'metrics', ()):
            if metric.collect_device == 'cpu' and metric.collect_dir is None:
                # By this name mmengine means the communication of whatever backend there is, gloo's
                # included.
                metric.collect_device = 'gpu'
