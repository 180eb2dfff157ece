"""Compares the run that wrote a checkpoint with the run that resumes from it."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence

from mmengine.logging import print_log
from mmengine.optim import OptimWrapper, OptimWrapperDict
from torch.utils.data import Dataset

from ...utils._compat.mmengine import SCHEDULER_STEPS
from ..loops.sampler import SeededDataset
from ..loops.total_batch import TotalBatch
from ..state import RunState, TrainingData

_REMEDY = (
    'resume with the config of that run, or start from its weights alone, in another work_dir, '
    'with load_from={source}'
)


def compare_optimizer(
    checkpoint: Mapping, wrapper: OptimWrapper | OptimWrapperDict, source: str
) -> None:
    """Checks that the stored optimizer state is of the same optimizer and parameter groups.

    Args:
        checkpoint: the whole checkpoint.
        wrapper: optimizer wrapper of the present run.
        source: name of the checkpoint in messages.

    Raises:
        ValueError: if the optimizer or its parameter groups differ.
    """
    state = checkpoint.get('optimizer')
    if state is None:
        sentence = f'{source} holds no state of the optimizer, so its moments start at zero.'
        print_log(sentence, logger='current', level=logging.WARNING)
        return
    # Several optimizers are left to torch's own comparison.
    if isinstance(wrapper, OptimWrapperDict) or 'param_groups' not in state:
        return
    fault = _other_kind(checkpoint, wrapper) or _other_groups(state, wrapper)
    if fault:
        raise ValueError(
            f'{source} was written by a run with another config: {fault}; '
            f'{_REMEDY.format(source=source)}'
        )


def _other_kind(checkpoint: Mapping, wrapper: OptimWrapper) -> str | None:
    """Returns how the type of the optimizer differs, or None."""
    own = type(wrapper.optimizer).__name__
    stored = RunState.from_checkpoint(checkpoint).optimizer
    if stored is None:
        # Older checkpoints do not name their optimizer. Versions of torch add settings to an
        # optimizer, but never replace one by another.
        options = [
            set(group[0])
            for group in (checkpoint['optimizer']['param_groups'], wrapper.optimizer.param_groups)
            if group
        ]
        if len(options) == 2 and options[0] - options[1] and options[1] - options[0]:
            stored = f'one with {", ".join(sorted(map(str, options[0] - options[1])))}'
    if stored in (None, own):
        return None
    return f'its optimizer is {stored}, and optim_wrapper.optimizer.type is {own}'


def _other_groups(state: Mapping, wrapper: OptimWrapper) -> str | None:
    """Returns how the parameter groups or their tensors differ, or None."""
    stored, own = state['param_groups'], wrapper.optimizer.param_groups
    if len(stored) != len(own):
        return (
            f'its optimizer has {len(stored)} groups of parameters, and this config {len(own)} '
            '(optim_wrapper.constructor and paramwise_cfg determine them)'
        )
    for i, (theirs, ours) in enumerate(zip(stored, own, strict=True)):
        if len(theirs['params']) != len(ours['params']):
            return (
                f'group {i} of its optimizer has {len(theirs["params"])} parameters, and of this '
                f'config {len(ours["params"])}'
            )
    for theirs, ours in zip(stored, own, strict=True):
        for number, parameter in zip(theirs['params'], ours['params'], strict=True):
            values = state.get('state', {}).get(number) or {}
            for name, value in values.items():
                shape = getattr(value, 'shape', ())
                # The number of steps is a scalar.
                if len(shape) and shape != parameter.shape:
                    return (
                        f"'{name}' of its parameter {number} has the shape {tuple(shape)}, and "
                        f'the parameter here {tuple(parameter.shape)}'
                    )
    return None


def compare_schedules(
    checkpoint: Mapping, schedulers: Sequence | Mapping | None, source: str
) -> None:
    """Checks that stored schedules count in the same unit, and warns if their number differs.

    Raises:
        ValueError: if one side counts epochs and the other iterations.
    """
    stored = checkpoint.get('param_schedulers')
    if not isinstance(stored, list) or not isinstance(schedulers, list):
        return
    if len(stored) != len(schedulers):
        print_log(
            f'{source} has {len(stored)} schedules, and param_scheduler of this config '
            f'{len(schedulers)}; only as many as both have are resumed, in order.',
            logger='current',
            level=logging.WARNING,
        )
    unit = {True: 'epochs', False: 'iterations'}
    for theirs, ours in zip(stored, schedulers, strict=False):
        if 'by_epoch' in theirs and theirs['by_epoch'] != ours.by_epoch:
            raise ValueError(
                f'{source} was written by a run with another config: its schedule counts '
                f'{unit[theirs["by_epoch"]]}, and {type(ours).__name__} in param_scheduler counts '
                f'{unit[ours.by_epoch]} (convert_to_iter_based); {_REMEDY.format(source=source)}'
            )


def describe_data(dataset: Dataset) -> TrainingData | None:
    """Describes the training data; None for a dataset of unknown length."""
    if isinstance(dataset, SeededDataset):
        dataset = dataset.dataset
    try:
        samples = len(dataset)
    except TypeError:
        return None
    digest = getattr(dataset, 'digest_of_names', None)
    return TrainingData(samples, digest() if digest else None)


def compare_data(stored: TrainingData | None, present: TrainingData | None) -> None:
    """Logs a warning if the training data have changed since a checkpoint was written."""
    if stored is None or present is None:
        return
    if stored.samples != present.samples:
        change = f'{stored.samples} samples then and {present.samples} now'
    elif stored.digest and present.digest and stored.digest != present.digest:
        change = f'{present.samples} samples then and now, but of other names'
    else:
        return
    print_log(
        f'The training data have changed since this checkpoint was written: {change}. Training '
        'resumes at the same position of an epoch of the present data, so within this epoch some '
        'samples may be seen twice and others not at all.',
        logger='current',
        level=logging.WARNING,
    )


def convert_steps(checkpoint: dict, present: TotalBatch) -> None:
    """Converts, in place, the steps in a checkpoint to the accumulation of the present run.

    A run on another number of GPUs may accumulate another number of steps per update.

    Raises:
        ValueError: if the total batch size differs.
    """
    before = RunState.from_checkpoint(checkpoint).total_batch
    if before is None:
        return
    if before.size != present.size:
        accumulate, rest = divmod(before.size, present.gpus * present.batch_size)
        if rest:
            remedy = f'choose batch_size and accumulate so that the product is {before.size}'
        else:
            remedy = f'set batch_size={present.batch_size} and accumulate={accumulate}'
        raise ValueError(
            f'the checkpoint was trained with {before.size} images per update ({before}), but '
            f'this run has {present.size} ({present}), and so another learning rate; {remedy}'
        )
    if before.accumulate == present.accumulate:
        return
    # Checkpoints fall on complete updates, so both divisions are exact.
    meta = checkpoint['meta']
    meta['iter'] = meta['iter'] // before.accumulate * present.accumulate
    for scheduler in checkpoint.get('param_schedulers', ()):
        if not scheduler['by_epoch']:
            for name in SCHEDULER_STEPS:
                scheduler[name] = scheduler[name] // before.accumulate * present.accumulate
