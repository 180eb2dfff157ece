"""The learning-rate schedule of the official recipe as one mmengine scheduler."""

from __future__ import annotations

import logging
import math

from mmengine.logging import print_log
from mmengine.optim.scheduler.lr_scheduler import LRSchedulerMixin
from mmengine.optim.scheduler.param_scheduler import INF

from ...utils._compat.mmengine import GLOBAL_STEP, ParamScheduler, accumulative_counts
from ..loops.total_batch import no_step

# Share of the training. The published recipes have at most 13 %.
_LONG_WARMUP = 0.2


def warmup_cosine(now: float, warmup: float, end: float, floor: float = 0.0) -> float:
    """Learning rate over base rate: from 0 linearly to 1 at ``warmup``, then half a cosine to
    ``floor`` at ``end``.

    ``now``, ``warmup`` and ``end`` count in one unit, be it iterations or seconds.
    """
    if now < warmup:
        return now / warmup
    progress = min(1.0, (now - warmup) / max(end - warmup, 1e-12))
    return floor + (1 - floor) * (1 + math.cos(math.pi * progress)) / 2


def check_warmup(warmup: float, length: float, unit: str) -> None:
    """Logs a warning if the warm-up takes more than a fifth of a schedule's ``length``, in epochs
    or iterations.

    The length follows the training, and the warm-up does not: the official recipe's 40 epochs are
    meant for 300 and more.

    """
    if warmup <= _LONG_WARMUP * length:
        return
    setting = 'set param_scheduler.warmup to 5 to 10 % of train_cfg.max_epochs (or max_iters)'
    if warmup >= length:
        sentence = (
            f'The warm-up takes {warmup:g} {unit} and the training {length:g}, so the learning '
            'rate does not come to '
            f'its full height; {setting}, unless this is a trial run.'
        )
    else:
        sentence = (
            f'The warm-up takes {warmup:g} of {length:g} {unit}, {100 * warmup / length:.0f} % of '
            'the training; '
            f'{setting} if the training was made shorter.'
        )
    print_log(sentence, logger='current', level=logging.WARNING)


class WarmupCosineLR(LRSchedulerMixin, ParamScheduler):
    """Linear warm-up from zero, then half a cosine (paper, appendix A.1), ending with the training.

    Each parameter group's own base rate is multiplied by :func:`warmup_cosine`, so the layer scales
    of layer-wise decay hold for the floor as well, as in the authors' code. mmengine's LinearLR
    cannot start at zero and peaks a step early, and its cosine must be told its length, which here
    is that of the training: whoever changes ``max_epochs`` gets the schedule that goes with it.

    Args:
        optimizer: optimiser or optimiser wrapper.
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
        """Builds a scheduler that counts iterations from arguments in epochs
        (``convert_to_iter_based=True``).
        """
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
        """Takes the position and base rates of a checkpoint, but warm-up and end from the config.

        mmengine's schedulers restore their end too, so that a run resumed with more epochs goes on
        at the last learning rate of the old schedule.
        """
        self.base_values = state_dict['base_values']
        self._global_step = state_dict[GLOBAL_STEP]
        if self._global_step >= self.begin:
            self.last_step = min(self._global_step, self.end - 1) - self.begin
            self._last_value = self._get_value()
            for group, value in zip(self.optimizer.param_groups, self._last_value, strict=True):
                group[self.param_name] = value

    def _get_value(self) -> list[float]:
        # All steps that add up to one update have its rate, as if they were one.
        accumulate = 1 if self.by_epoch else accumulative_counts(self.optimizer)
        factor = warmup_cosine(
            self.last_step // accumulate * accumulate,
            self.warmup,
            self.end - self.begin,
            self.eta_min_ratio,
        )
        return [base * factor for base in self.base_values]


def end_schedules(schedules: object, max_iters: int, epoch_length: int) -> object:
    """Lets schedules in epochs end with a training that is counted in iterations.

    mmengine takes such a training for one epoch, so that a schedule ended with the first pass
    through the data.

    Args:
        schedules: the configs of a Runner's schedules; those that are no WarmupCosineLR, or say
            where they end, stay.
        max_iters: the length of the training.
        epoch_length: steps of one pass through the data.
    """
    if isinstance(schedules, (list, tuple)):
        return [end_schedules(schedule, max_iters, epoch_length) for schedule in schedules]
    kind = schedules.get('type') if isinstance(schedules, dict) else None
    if (
        kind in ('WarmupCosineLR', WarmupCosineLR)
        and schedules.get('convert_to_iter_based')
        and epoch_length
    ):
        return {'end': max_iters / epoch_length, **schedules}
    return schedules
