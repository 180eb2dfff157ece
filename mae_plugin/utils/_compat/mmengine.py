"""Private names of mmengine, written for mmengine 0.10.7 and onedl-mmengine 0.10.12."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Literal

from mmengine.dataset import BaseDataset
from mmengine.model import MMDistributedDataParallel
from mmengine.optim.scheduler.param_scheduler import _ParamScheduler
from mmengine.runner import BaseLoop, EpochBasedTrainLoop, Runner
from mmengine.visualization import Visualizer

LoopName = Literal['train', 'val', 'test']

# Runs a model on a batch, whose form (dict, tuple or list) decides how it is passed on
# (mmengine 0.10.7, 0.10.12).
run_forward = MMDistributedDataParallel._run_forward

# Base class of parameter schedulers (mmengine 0.10.7, 0.10.12).
ParamScheduler = _ParamScheduler

# Entries of a parameter scheduler's state dict that count steps (mmengine 0.10.7, 0.10.12).
GLOBAL_STEP = '_global_step'
SCHEDULER_STEPS = (GLOBAL_STEP, 'last_step')


def built_loop(runner: Runner, name: LoopName) -> BaseLoop | None:
    """Returns a loop of a Runner, None if the Runner has no such loop or has not built it yet.

    ``runner.train_loop`` builds the loop, so ``_train_loop``, ``_val_loop`` and ``_test_loop`` are
    read instead (mmengine 0.10.7, 0.10.12).
    """
    loop = getattr(runner, f'_{name}_loop', None)
    return loop if isinstance(loop, BaseLoop) else None


def has_loop(runner: Runner, name: LoopName) -> bool:
    """Returns whether a loop of a Runner is configured, built or not.

    Without configuration ``_train_loop`` and the others are None (mmengine 0.10.7, 0.10.12).
    """
    return getattr(runner, f'_{name}_loop') is not None


def load_source(runner: Runner) -> str | None:
    """Returns the path or URL of the checkpoint that a Runner loads or resumes, None if none.

    The Runner keeps it in ``_load_from`` (mmengine 0.10.7, 0.10.12).
    """
    source = runner._load_from
    return None if source is None else str(source)


def is_resuming(runner: Runner) -> bool:
    """Returns whether a Runner resumes, as set by its argument ``resume``.

    The Runner keeps it in ``_resume`` (mmengine 0.10.7, 0.10.12).
    """
    return runner._resume


def has_loaded(runner: Runner) -> bool:
    """Returns whether a Runner has loaded its checkpoint.

    The Runner keeps it in ``_has_loaded`` (mmengine 0.10.7, 0.10.12).
    """
    return runner._has_loaded


def set_resume_source(runner: Runner, path: str | None) -> None:
    """Makes a Runner resume from a checkpoint, or start anew if ``path`` is None.

    The Runner reads ``_load_from`` and ``_resume`` (mmengine 0.10.7, 0.10.12).
    """
    runner._load_from = path
    runner._resume = path is not None


def set_train_dataset(runner: Runner, dataset: Any) -> None:
    """Replaces the dataset in the dataloader config of a Runner whose training loop is not built.

    The Runner keeps that config in ``_train_dataloader`` (mmengine 0.10.7, 0.10.12).
    """
    runner._train_dataloader['dataset'] = dataset


def end_training_after(loop: BaseLoop, number: int) -> None:
    """Ends a training loop after a number of epochs, or of iterations if the loop counts these.

    mmengine's loops keep the number in ``_max_epochs`` or ``_max_iters`` (mmengine 0.10.7,
    0.10.12).
    """
    if isinstance(loop, EpochBasedTrainLoop):
        loop._max_epochs = number
    else:
        loop._max_iters = number


def loader_iterator(batches: Iterator | None) -> Iterator | None:
    """Returns the DataLoader's iterator inside the endless one of ``IterBasedTrainLoop``.

    ``_InfiniteDataloaderIterator`` keeps it in ``_iterator``; any other iterator is returned as it
    is (mmengine 0.10.7, 0.10.12).
    """
    return getattr(batches, '_iterator', batches)


def accumulative_counts(optim_wrapper: object) -> int:
    """Returns the number of steps that make one update, 1 for what is no OptimWrapper.

    ``OptimWrapper`` keeps it in ``_accumulative_counts`` (mmengine 0.10.7, 0.10.12).
    """
    return getattr(optim_wrapper, '_accumulative_counts', 1)


def visualizer_backends(visualizer: Visualizer) -> list[Any]:
    """Returns the backends to which a visualizer writes.

    ``Visualizer`` keeps them by name in ``_vis_backends`` (mmengine 0.10.7, 0.10.12).
    """
    return list(visualizer._vis_backends.values())


def set_wrapper_classes(dataset: Any, classes: Sequence[str]) -> None:
    """Sets the class names that a dataset wrapper copied from the dataset inside it.

    Wrappers such as ``ConcatDataset`` keep the copy in ``_metainfo``; a ``BaseDataset`` is left as
    it is (mmengine 0.10.7, 0.10.12).
    """
    if not isinstance(dataset, BaseDataset) and isinstance(
        getattr(dataset, '_metainfo', None), dict
    ):
        dataset._metainfo['classes'] = classes
