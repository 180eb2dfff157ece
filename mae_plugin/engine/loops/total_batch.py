"""How many images an update takes, which is what decides the learning rate."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import torch
from mmengine.config import Config
from mmengine.dataset import InfiniteSampler
from mmengine.logging import print_log
from mmengine.runner import Runner
from torch.utils.data import DataLoader

from ...utils._compat.mmengine import SCHEDULER_STEPS, accumulative_counts
from ...weights.loading import read_checkpoint
from ..resume.work_dir import Places

# Where each launcher says how many processes it has started.
_WORLD_SIZE = dict(pytorch='WORLD_SIZE', slurm='SLURM_NTASKS', mpi='OMPI_COMM_WORLD_SIZE')
# Rates are given for 256 images an update in the paper and in the authors' code.
_RATE_UNIT = 256


class EffectiveBatch(NamedTuple):
    """What an update is made of."""

    gpus: int
    batch_size: int
    """What a GPU takes in one step; with ``repeats``, every crop counts."""
    accumulate: int
    repeats: int = 1
    """Crops in a row of the same image."""

    @classmethod
    def of(cls, runner: Runner, dataloader: dict) -> EffectiveBatch:
        """That of a run with this config of a data loader; its optimiser wrapper may not be built
        yet.
        """
        wrapper = runner.optim_wrapper
        built = not isinstance(wrapper, dict)
        accumulate = (
            accumulative_counts(wrapper) if built else wrapper.get('accumulative_counts', 1)
        )
        repeats = dataloader.get('sampler', {}).get('repeats', 1)
        return cls(runner.world_size, dataloader['batch_size'], accumulate, repeats)

    @property
    def total(self) -> int:
        """Images of an update over all GPUs, every crop counted."""
        return self.gpus * self.batch_size * self.accumulate

    def __str__(self) -> str:
        device = 'GPU' if torch.cuda.is_available() else 'process'
        plural = '' if self.gpus == 1 else 's' if device == 'GPU' else 'es'
        crops = f', {self.repeats} crops of each image' if self.repeats > 1 else ''
        return f'{self.gpus} {device}{plural} × {self.batch_size} × {self.accumulate}{crops}'

    def scale_rate(self, runner: Runner) -> None:
        """Logs the learning rate, and lets mmengine, which knows of GPUs and batch size alone, get
        it right.
        """
        wrapper, rule = runner.optim_wrapper, runner.auto_scale_lr
        lr = (
            wrapper['optimizer']['lr']
            if isinstance(wrapper, dict)
            else wrapper.optimizer.defaults['lr']
        )
        print_log(self.explain(lr, rule), logger='current')
        if rule and rule.get('enable'):
            runner.auto_scale_lr = {
                **rule,
                'base_batch_size': rule['base_batch_size'] / self.accumulate,
            }

    def explain(self, lr: float, auto_scale_lr: dict | None) -> str:
        """One line: the learning rate, and how it comes from the recipe's, which is ``lr``."""
        if not (auto_scale_lr and auto_scale_lr.get('enable')):
            return f'lr {_number(lr)}, whatever the batch, which is {self.total} ({self})'
        unit = lr * _RATE_UNIT / auto_scale_lr['base_batch_size']
        rate = unit * self.total / _RATE_UNIT
        return f'lr {_number(rate)} = {_number(unit)} × {self.total} / {_RATE_UNIT} ({self})'

    def take_over(self, checkpoint: dict) -> None:
        """Lets a checkpoint that was written on another number of GPUs count in this run's steps.

        Raises:
            ValueError: if its updates were of another size.
        """
        before = stored_batch(checkpoint['meta'])
        if before is None:
            return
        if before.total != self.total:
            wanted, rest = divmod(before.total, self.total // self.accumulate)
            remedy = (
                f'add --batch-size {self.batch_size} --accumulate {wanted}'
                if not rest
                else (f'choose --batch-size and --accumulate so that the product is {before.total}')
            )
            raise ValueError(
                f'the checkpoint was trained with {before.total} images an update ({before}), but '
                'this run would go on '
                f'with {self.total} ({self}), at another learning rate; {remedy}'
            )
        if before.accumulate != self.accumulate:
            meta = checkpoint['meta']
            meta['iter'] = meta['iter'] // before.accumulate * self.accumulate
            for scheduler in checkpoint.get('param_schedulers', ()):
                if not scheduler['by_epoch']:
                    for name in SCHEDULER_STEPS:
                        scheduler[name] = scheduler[name] // before.accumulate * self.accumulate


def stored_batch(meta: Mapping) -> EffectiveBatch | None:
    """Returns what an update was made of in the run that wrote a checkpoint; None if its ``meta``
    does not say.

    Raises:
        ValueError: if what it says is no batch.
    """
    batch = meta.get('batch')
    if batch is None:
        return None
    whole = isinstance(batch, (list, tuple)) and all(
        type(number) is int and number > 0 for number in batch
    )
    if not whole or len(batch) not in (3, 4):
        raise ValueError(
            f"holds {batch!r:.80} as meta['batch'], not the positive numbers of GPUs, images and "
            'steps'
        )
    return EffectiveBatch(*batch)


def check_steps(dataloader: DataLoader) -> None:
    """Raises ValueError if an epoch of a data loader has no step."""
    try:
        images, steps = len(dataloader.dataset), len(dataloader)
    # The length of a stream is not known.
    except TypeError:
        return
    sampler = dataloader.sampler
    endless = isinstance(sampler, InfiniteSampler) or getattr(sampler, 'endless', False)
    if images == 0 or (steps == 0 and not endless):
        raise ValueError(no_step(images, dataloader.batch_size))


def no_step(images: int | None = None, batch_size: int | None = None) -> str:
    """The sentence for a dataset that is too small for a single step."""
    numbers = f' ({images} images, {batch_size} a step and process)' if images is not None else ''
    return (
        'there are fewer training images than one batch holds (over all GPUs and accumulated '
        'steps), and incomplete '
        f'batches are dropped, so an epoch has no step{numbers}; make train_dataloader.batch_size '
        'smaller'
    )


def fit_batch(cfg: Config, batch_size: int | None, accumulate: int | None) -> None:
    """Sets batch size and accumulation in a config; what is None follows from the recipe's images
    an update.

    Raises:
        ValueError: if that does not come out even.
    """
    if batch_size is None and accumulate is None:
        return
    gpus = _gpus(cfg)
    if batch_size is None or accumulate is None:
        name, given = (
            ('--accumulate', accumulate) if batch_size is None else ('--batch-size', batch_size)
        )
        recipe = (cfg.get('auto_scale_lr') or {}).get('base_batch_size')
        if recipe is None:
            raise ValueError(
                'the config says for no batch size its learning rate is meant (auto_scale_lr), so '
                'there is none to '
                'keep; give both --batch-size and --accumulate'
            )
        fits = [n for n in range(1, recipe // gpus + 1) if recipe % (n * gpus) == 0]
        if given not in fits:
            near = (
                ' or '.join(map(str, sorted(sorted(fits, key=lambda n: abs(n - given))[:2])))
                or 'no value'
            )
            raise ValueError(
                f"{name} {given} on {gpus} GPUs cannot come to the recipe's {recipe} images an "
                f'update; {near} can, or '
                'give both --batch-size and --accumulate, and the learning rate follows'
            )
        other = recipe // (given * gpus)
        batch_size, accumulate = (other, accumulate) if batch_size is None else (batch_size, other)
    if batch_size < 1 or accumulate < 1:
        raise ValueError(
            f'--batch-size {batch_size} and --accumulate {accumulate} must be at least 1'
        )
    cfg.train_dataloader.batch_size = batch_size
    cfg.optim_wrapper.accumulative_counts = accumulate


def keep_batch(cfg: Config) -> None:
    """Lets a run that goes on have as many images an update as before, on any number of GPUs.

    A GPU takes what the config says in one step, or the next smaller number that comes out even,
    and steps are added up. Where GPUs cannot share the images evenly the config stays, and resuming
    refuses it.
    """
    hook = (cfg.get('default_hooks') or {}).get('checkpoint') or {}
    named = cfg.get('load_from')
    places = Places.of(cfg.work_dir, hook.get('out_dir'), hook.get('filename_tmpl'))
    before = next(
        filter(None, map(_batch_in, [Path(named)] if named else places.candidates())), None
    )
    # A run of mmengine's own, or nothing to resume, which is said where it is resumed.
    if before is None:
        return
    own, rest = divmod(before.total, _gpus(cfg))
    if not rest:
        most = min(own, cfg.train_dataloader.batch_size)
        cfg.train_dataloader.batch_size = next(
            size for size in range(most, 0, -1) if own % size == 0
        )
        cfg.optim_wrapper.accumulative_counts = own // cfg.train_dataloader.batch_size


def _batch_in(path: Path) -> EffectiveBatch | None:
    """What an update was made of by a checkpoint, of which no tensor is read; None if it does not
    say.
    """
    try:
        return stored_batch(read_checkpoint(str(path), 'meta')['meta']) if path.is_file() else None
    # Files that cannot be resumed are named where the checkpoint is chosen.
    except Exception:
        return None


def _gpus(cfg: Config) -> int:
    return int(os.environ.get(_WORLD_SIZE.get(cfg.launcher, ''), 1))


def _number(value: float) -> str:
    """A number as recipes are written: 2.4e-3, 0.1, 6.4."""
    if 0.01 <= value < 1000:
        return f'{value:.4g}'
    mantissa, _, exponent = f'{value:.3e}'.partition('e')
    return f'{float(mantissa):g}e{int(exponent)}'
