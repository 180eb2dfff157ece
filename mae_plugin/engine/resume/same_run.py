"""Compares the run that wrote a checkpoint with the one that resumes from it."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence

from mmengine.logging import print_log
from mmengine.optim import OptimWrapper, OptimWrapperDict
from torch.utils.data import Dataset

from ..loops.sampler import SeededDataset

_REMEDY = (
    'resume with the config of that run, or start from its weights alone, in another --work-dir, '
    'with --cfg-options '
    'load_from={source}'
)


def compare_optimizer(
    checkpoint: Mapping, wrapper: OptimWrapper | OptimWrapperDict, source: str
) -> None:
    """Refuses the state of another optimizer, or of other groups of parameters.

    Args:
        checkpoint: the whole checkpoint.
        wrapper: this run's optimizer wrapper.
        source: what to call the checkpoint.

    Raises:
        ValueError: naming what differs.
    """
    state = checkpoint.get('optimizer')
    if state is None:
        sentence = f'{source} holds no state of the optimizer, so its moments start at zero.'
        print_log(sentence, logger='current', level=logging.WARNING)
        return
    # Several optimizers are compared by torch alone.
    if isinstance(wrapper, OptimWrapperDict) or 'param_groups' not in state:
        return
    fault = _other_kind(checkpoint, wrapper) or _other_groups(state, wrapper)
    if fault:
        raise ValueError(
            f'{source} was written by a run of another config: {fault}; '
            f'{_REMEDY.format(source=source)}'
        )


def _other_kind(checkpoint: Mapping, wrapper: OptimWrapper) -> str | None:
    own = type(wrapper.optimizer).__name__
    stored = checkpoint['meta'].get('optimizer')
    if stored is None:
        # Older checkpoints do not name it; versions of torch add settings, but never exchange one
        # for another.
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
    stored, own = state['param_groups'], wrapper.optimizer.param_groups
    sizes = [[len(group['params']) for group in groups] for groups in (stored, own)]
    if len(stored) != len(own):
        return (
            f'its optimizer has {len(stored)} groups of parameters, and this config {len(own)} '
            '(optim_wrapper.constructor and paramwise_cfg decide)'
        )
    if sizes[0] != sizes[1]:
        first = next(i for i, pair in enumerate(zip(*sizes, strict=True)) if pair[0] != pair[1])
        return f'group {first} of its optimizer has {sizes[0][first]} parameters, and of this config {sizes[1][first]}'
    for theirs, ours in zip(stored, own, strict=True):
        for number, parameter in zip(theirs['params'], ours['params'], strict=True):
            for name, value in (state.get('state', {}).get(number) or {}).items():
                shape = getattr(value, 'shape', ())
                if len(shape) and shape != parameter.shape:
                    return (
                        f"'{name}' of its parameter {number} has the shape {tuple(shape)}, and "
                        'the parameter here '
                        f'{tuple(parameter.shape)}'
                    )
    return None


def compare_schedules(
    checkpoint: Mapping, schedulers: Sequence | Mapping | None, source: str
) -> None:
    """Refuses schedules that count in another unit, and logs a warning for another number of them.

    Raises:
        ValueError: if one side counts epochs and the other iterations.
    """
    stored = checkpoint.get('param_schedulers')
    if not isinstance(stored, list) or not isinstance(schedulers, list):
        return
    if len(stored) != len(schedulers):
        print_log(
            f'{source} has {len(stored)} schedules, and param_scheduler of this config '
            f'{len(schedulers)}; those that '
            'both have go on, one after the other.',
            logger='current',
            level=logging.WARNING,
        )
    for theirs, ours in zip(stored, schedulers, strict=False):
        if 'by_epoch' in theirs and theirs['by_epoch'] != ours.by_epoch:
            unit = {True: 'epochs', False: 'iterations'}
            raise ValueError(
                f'{source} was written by a run of another config: its schedule counts '
                f'{unit[theirs["by_epoch"]]}, and '
                f'{type(ours).__name__} in param_scheduler counts {unit[ours.by_epoch]} '
                '(convert_to_iter_based); '
                f'{_REMEDY.format(source=source)}'
            )


def describe_data(dataset: Dataset) -> dict:
    """Returns what a checkpoint notes about the data: ``samples`` and, where it costs little, a
    digest of ``names``.
    """
    if isinstance(dataset, SeededDataset):
        dataset = dataset.dataset
    try:
        samples = len(dataset)
    except TypeError:
        return {}
    digest = getattr(dataset, 'digest_of_names', None)
    return dict(samples=samples, names=digest() if digest else None)


def compare_data(checkpoint: Mapping, present: Mapping) -> None:
    """Logs a warning if a run resumes with other data than it was trained on."""
    before = checkpoint['meta'].get('data')
    if not isinstance(before, Mapping) or not before or not present:
        return
    if before.get('samples') != present['samples']:
        change = f'{before.get("samples")} samples then and {present["samples"]} now'
    elif before.get('names') and present['names'] and before['names'] != present['names']:
        change = f'{present["samples"]} samples then and now, but of other names'
    else:
        return
    print_log(
        f'The training data has changed since this checkpoint was written: {change}. Training '
        'goes on at the same '
        'position of an epoch of the data as it is now, so within this epoch some samples may be '
        'seen twice and others '
        'not at all.',
        logger='current',
        level=logging.WARNING,
    )
