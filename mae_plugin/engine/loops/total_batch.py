"""Total batch size: images per update over all GPUs, which determines the learning rate."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from mmengine.dataset import InfiniteSampler
from mmengine.logging import print_log
from mmengine.runner import Runner
from torch.utils.data import DataLoader

from ...utils._compat.mmengine import accumulative_counts

# The paper and the authors' code state learning rates per 256 images of an update.
_RATE_UNIT = 256


@dataclass(frozen=True)
class TotalBatch:
    """Composition of the total batch of one update.

    Attributes:
        gpus: number of GPUs, or of processes without GPUs.
        batch_size: images per GPU and step. With ``repeats``, every crop counts.
        accumulate: steps whose gradients add up to one update.
        repeats: consecutive crops of the same image.
    """

    gpus: int
    batch_size: int
    accumulate: int
    repeats: int = 1

    @classmethod
    def of(cls, runner: Runner, dataloader: dict) -> TotalBatch:
        """Builds it from a runner and its dataloader config.

        The optimizer wrapper of the runner may still be a config.
        """
        wrapper = runner.optim_wrapper
        if isinstance(wrapper, dict):
            accumulate = wrapper.get('accumulative_counts', 1)
        else:
            accumulate = accumulative_counts(wrapper)
        repeats = dataloader.get('sampler', {}).get('repeats', 1)
        return cls(runner.world_size, dataloader['batch_size'], accumulate, repeats)

    @property
    def size(self) -> int:
        """Images per update over all GPUs; every crop counts."""
        return self.gpus * self.batch_size * self.accumulate

    def __str__(self) -> str:
        device, plural = ('GPU', 'GPUs') if torch.cuda.is_available() else ('process', 'processes')
        crops = f', {self.repeats} crops of each image' if self.repeats > 1 else ''
        unit = device if self.gpus == 1 else plural
        return f'{self.gpus} {unit} × {self.batch_size} × {self.accumulate}{crops}'

    def scale_rate(self, runner: Runner) -> None:
        """Logs the learning rate, and corrects mmengine's scaling for accumulated steps."""
        wrapper, rule = runner.optim_wrapper, runner.auto_scale_lr
        is_config = isinstance(wrapper, dict)
        settings = wrapper['optimizer'] if is_config else wrapper.optimizer.defaults
        print_log(self.explain(settings['lr'], rule), logger='current')
        if rule and rule.get('enable'):
            # mmengine multiplies the rate by GPUs × batch size alone.
            base = rule['base_batch_size'] / self.accumulate
            runner.auto_scale_lr = {**rule, 'base_batch_size': base}

    def explain(self, lr: float, auto_scale_lr: dict | None) -> str:
        """Returns one line that derives the learning rate from the recipe's.

        Args:
            lr: learning rate of the recipe.
            auto_scale_lr: rule of the config by which mmengine scales the learning rate.
        """
        if not (auto_scale_lr and auto_scale_lr.get('enable')):
            return f'lr {_format(lr)}, not scaled to the total batch size of {self.size} ({self})'
        unit = lr * _RATE_UNIT / auto_scale_lr['base_batch_size']
        rate = unit * self.size / _RATE_UNIT
        return f'lr {_format(rate)} = {_format(unit)} × {self.size} / {_RATE_UNIT} ({self})'


def check_steps(dataloader: DataLoader) -> None:
    """Raises ValueError if an epoch of a data loader has no step."""
    try:
        images, steps = len(dataloader.dataset), len(dataloader)
    except TypeError:
        # The length of a stream is unknown.
        return
    sampler = dataloader.sampler
    endless = isinstance(sampler, InfiniteSampler) or getattr(sampler, 'endless', False)
    if images == 0 or (steps == 0 and not endless):
        raise ValueError(no_step(images, dataloader.batch_size))


def no_step(images: int | None = None, batch_size: int | None = None) -> str:
    """Returns the error message for a dataset that is too small for a single step."""
    numbers = ''
    if images is not None:
        numbers = f' ({images} images, {batch_size} per step and process)'
    return (
        'the dataset has fewer training images than one batch (over all GPUs and accumulated '
        'steps), and incomplete batches are dropped, so an epoch has no '
        f'step{numbers}; make train_dataloader.batch_size smaller'
    )


def _format(value: float) -> str:
    """Formats a number as recipes do: 2.4e-3, 0.1, 6.4."""
    if 0.01 <= value < 1000:
        return f'{value:.4g}'
    mantissa, _, exponent = f'{value:.3e}'.partition('e')
    return f'{float(mantissa):g}e{int(exponent)}'
