"""The learning-rate schedule of the official recipe as one mmengine scheduler."""

from __future__ import annotations

import logging
import math

from mmengine.logging import print_log
from mmengine.optim.scheduler.lr_scheduler import LRSchedulerMixin
from mmengine.optim.scheduler.param_scheduler import INF

from ...utils._compat.mmengine import GLOBAL_STEP, ParamScheduler, accumulative_counts
from ..loops.total_batch import no_step

# A longer warm-up than this share of training logs a warning. Published recipes have up to 13 %.
_LONG_WARMUP = 0.2


def warmup_cosine(now: float, warmup: float, end: float, floor: float = 0.0) -> float:
    """Returns the factor of the learning rate: linear warm-up from 0 to 1, then half a cosine.

    Args:
        now: present position, in the same unit as ``warmup`` and ``end``, such as iterations.
        warmup: end of the warm-up, where the factor is 1.
        end: end of the cosine.
        floor: factor at ``end``.
    """
    if now < warmup:
        return now / warmup
    progress = min(1.0, (now - warmup) / max(end - warmup, 1e-12))
    return floor + (1 - floor) * (1 + math.cos(math.pi * progress)) / 2


def check_warmup(warmup: float, length: float, unit: str) -> None:
    """Logs a warning if the warm-up takes more than a fifth of a schedule.

    A shorter training shortens the schedule but not its warm-up. The official recipe's 40 epochs
    are meant for 300 and more.

    Args:
        warmup: length of the warm-up.
        length: length of the schedule, with its warm-up.
        unit: unit of both, ``'epochs'`` or ``'iterations'``.
    """
    if warmup <= _LONG_WARMUP * length:
        return
    setting = 'set param_scheduler.warmup to 5 to 10 % of train_cfg.max_epochs (or max_iters)'
    if warmup >= length:
        sentence = (
            f'The warm-up takes {warmup:g} {unit} and training {length:g}, so the learning rate '
            f'does not reach its peak; {setting}, unless this is a trial run.'
        )
    else:
        sentence = (
            f'The warm-up takes {warmup:g} of {length:g} {unit}, {100 * warmup / length:.0f} % of '
            f'the training; {setting} if you have shortened the training.'
        )
    print_log(sentence, logger='current', level=logging.WARNING)


class WarmupCosineLR(LRSchedulerMixin, ParamScheduler):
    """Schedules a linear warm-up from zero, then half a cosine to the end of training.

    The source is appendix A.1 of the paper. Each parameter group's own base rate is multiplied by
    :func:`warmup_cosine`, so the factors of layer-wise decay apply to the floor as well, as in the
    authors' code. mmengine's LinearLR cannot start at zero and peaks a step early. Its cosine needs
    its length as an argument; here the length is that of training, also when ``max_epochs`` is
    changed.

    Args:
        optimizer: optimizer or optimizer wrapper.
        warmup: number of warm-up epochs, or iterations with ``by_epoch=False``.
        eta_min_ratio: last learning rate over the base rate.
        **kwargs: ``begin``, ``end`` (the end of training if left out), ``by_epoch``, ``last_step``,
            ``verbose``.
    """

    def __init__(
        self, optimizer, *args, warmup: float = 0, eta_min_ratio: float = 0.0, **kwargs
    ) -> None:
        self.warmup = warmup
        self.eta_min_ratio = eta_min_ratio
        super().__init__(optimizer, *args, **kwargs)
        check_warmup(warmup, self.end - self.begin, 'epochs' if self.by_epoch else 'iterations')

    @classmethod
    def build_iter_from_epoch(
        cls,
        *args,
        epoch_length: int,
        warmup: float = 0,
        begin: int = 0,
        end: int = INF,
        by_epoch: bool = True,
        **kwargs,
    ) -> WarmupCosineLR:
        """Builds a scheduler by iteration from arguments in epochs (``convert_to_iter_based``)."""
        if epoch_length == 0:
            raise ValueError(no_step())
        end = end if end == INF else round(end * epoch_length)
        return cls(
            *args,
            warmup=warmup * epoch_length,
            begin=begin * epoch_length,
            end=end,
            by_epoch=False,
            **kwargs,
        )

    def load_state_dict(self, state_dict: dict) -> None:
        """Loads position and base rates of a checkpoint; warm-up and end stay as in the config.

        mmengine's schedulers load their end too, so a run resumed with more epochs would continue
        at the last learning rate of the old schedule.
        """
        # `last_step` counts from `begin`, and stays at the end of the present schedule.
        self.base_values = state_dict['base_values']
        self._global_step = state_dict[GLOBAL_STEP]
        if self._global_step >= self.begin:
            self.last_step = min(self._global_step, self.end - 1) - self.begin
            self._last_value = self._get_value()
            for group, value in zip(self.optimizer.param_groups, self._last_value, strict=True):
                group[self.param_name] = value

    def _get_value(self) -> list[float]:
        """Returns the learning rate of every parameter group."""
        # All accumulated steps of an update have the same rate, as if they were one step.
        accumulate = 1 if self.by_epoch else accumulative_counts(self.optimizer)
        factor = warmup_cosine(
            self.last_step // accumulate * accumulate,
            self.warmup,
            self.end - self.begin,
            self.eta_min_ratio,
        )
        return [base * factor for base in self.base_values]


def end_schedules(schedules: object, max_iters: int, epoch_length: int) -> object:
    """Returns configs of schedules in epochs that end with a training counted in iterations.

    mmengine treats such a training as one epoch, so a schedule would end with the first pass
    through the data.

    Args:
        schedules: configs of a Runner's schedules. Those of other classes than WarmupCosineLR, or
            with their own ``end``, are returned as they are.
        max_iters: length of training in iterations.
        epoch_length: steps of one pass through the data.
    """
    if isinstance(schedules, (list, tuple)):
        return [end_schedules(schedule, max_iters, epoch_length) for schedule in schedules]
    if not isinstance(schedules, dict) or not epoch_length:
        return schedules
    is_cosine = schedules.get('type') in ('WarmupCosineLR', WarmupCosineLR)
    if is_cosine and schedules.get('convert_to_iter_based'):
        return {'end': max_iters / epoch_length, **schedules}
    return schedules
