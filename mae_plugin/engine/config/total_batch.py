"""Sets batch size and gradient accumulation in a config, so that the total batch size stays."""

from __future__ import annotations

import os
from pathlib import Path

from mmengine.config import Config

from ...weights.loading import read_checkpoint
from ..loops.total_batch import TotalBatch
from ..resume.work_dir import CheckpointPaths
from ..state import RunState

# The environment variable in which each launcher stores the number of processes.
_WORLD_SIZE = dict(pytorch='WORLD_SIZE', slurm='SLURM_NTASKS', mpi='OMPI_COMM_WORLD_SIZE')


def set_total_batch(cfg: Config, batch_size: int | None, accumulate: int | None) -> None:
    """Sets batch size and accumulation in a config.

    If one of them is None, it follows from the recipe's total batch size. If both are None, the
    config stays as it is.

    Args:
        cfg: config of a run, changed in place.
        batch_size: images per GPU and step.
        accumulate: steps per update.

    Raises:
        ValueError: if the numbers do not divide evenly.
    """
    if accumulate is not None and batch_size is None:
        batch_size = _solve(cfg, 'accumulate', accumulate)
    elif batch_size is not None and accumulate is None:
        accumulate = _solve(cfg, 'batch_size', batch_size)
    if batch_size is None or accumulate is None:
        return
    if batch_size < 1 or accumulate < 1:
        raise ValueError(f'batch_size={batch_size} and accumulate={accumulate} must be at least 1')
    cfg.train_dataloader.batch_size = batch_size
    cfg.optim_wrapper.accumulative_counts = accumulate


def _solve(cfg: Config, name: str, given: int) -> int:
    """Returns the factor that completes a given one to the recipe's total batch size."""
    gpus = _gpus(cfg)
    recipe = (cfg.get('auto_scale_lr') or {}).get('base_batch_size')
    if recipe is None:
        raise ValueError(
            'the config has no auto_scale_lr.base_batch_size, so there is no total batch size to '
            'keep; give both batch_size and accumulate'
        )
    valid = [n for n in range(1, recipe // gpus + 1) if recipe % (n * gpus) == 0]
    if given not in valid:
        nearest = sorted(valid, key=lambda n: abs(n - given))[:2]
        near = ' or '.join(map(str, sorted(nearest))) or 'no value'
        raise ValueError(
            f"{name}={given} on {gpus} GPUs does not divide the recipe's {recipe} images per "
            f'update; {near} can, or give both batch_size and accumulate, and the learning rate '
            'is scaled'
        )
    return recipe // (given * gpus)


def keep_total_batch(cfg: Config) -> None:
    """Sets batch size and accumulation so that a resumed run keeps its total batch size.

    The number of GPUs may differ from that of the run before. The batch size of the config is
    used, or the next smaller number that divides evenly, and steps are accumulated. If the GPUs
    cannot share the images evenly, the config stays, and resuming raises an error.
    """
    hook = (cfg.get('default_hooks') or {}).get('checkpoint') or {}
    paths = CheckpointPaths.of(cfg.work_dir, hook.get('out_dir'), hook.get('filename_tmpl'))
    named = cfg.get('load_from')
    candidates = [Path(named)] if named else paths.candidates()
    before = next(filter(None, map(_stored_batch, candidates)), None)
    # A run of mmengine's own loop, or nothing to resume; resuming reports the latter.
    if before is None:
        return
    per_gpu, rest = divmod(before.size, _gpus(cfg))
    if rest:
        return
    # The largest divisor up to the batch size of the config.
    batch_size = min(per_gpu, cfg.train_dataloader.batch_size)
    while per_gpu % batch_size:
        batch_size -= 1
    cfg.train_dataloader.batch_size = batch_size
    cfg.optim_wrapper.accumulative_counts = per_gpu // batch_size


def _stored_batch(path: Path) -> TotalBatch | None:
    """Returns the total batch in a checkpoint without reading its tensors; None without one."""
    if not path.is_file():
        return None
    try:
        checkpoint = dict(meta=read_checkpoint(str(path), 'meta')['meta'])
        return RunState.from_checkpoint(checkpoint).total_batch
    except Exception:
        # Choosing the checkpoint to resume from reports files that cannot be read.
        return None


def _gpus(cfg: Config) -> int:
    """Returns the number of processes that the launcher of a config has started."""
    return int(os.environ.get(_WORLD_SIZE.get(cfg.launcher, ''), 1))
