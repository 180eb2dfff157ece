"""Epoch-based and iteration-based training loops that resume exactly from any step.

Both are mmengine's loops with the shared behavior of ``resumable.ResumableLoop``.
"""

from __future__ import annotations

import torch
from mmengine.runner import EpochBasedTrainLoop, IterBasedTrainLoop, Runner

from ..optim.schedule import end_schedules
from .resumable import ResumableLoop
from .worker_errors import ending_workers


class ResumableEpochLoop(ResumableLoop, EpochBasedTrainLoop):
    """Extends mmengine's epoch-based loop to resume exactly, also within an epoch.

    Arguments are those of ``EpochBasedTrainLoop``. ``train_dataloader`` is the usual config with a
    DefaultSampler or InfiniteSampler, whose ``shuffle`` is used; dataset and pipeline may be any.
    With gradient accumulation an epoch consists of complete updates. A DataLoader object is built
    anew with a resumable sampler. Any other iterable of batches is used as it is, and does not
    resume exactly (:class:`InexactLoader`).

    Raises:
        ValueError: for another sampler in the config.
    """

    endless = False
    unit = 'epoch'

    def run(self) -> torch.nn.Module:
        """Trains to the last epoch."""
        self._check_rest()
        self._go_to_position()
        with ending_workers(self):
            self.runner.call_hook('before_train')
            self._complete_validation()
            while self._epoch < self._max_epochs and not self.stop_training:
                self.run_epoch()
                self._decide_current_val_interval()
                if self._validation_is_due():
                    self.runner.val_loop.run()
            self.runner.call_hook('after_train')
        return self.runner.model

    def run_epoch(self) -> None:
        """Trains to the end of an epoch, from the step at which it was interrupted."""
        while not self._completes_epoch():
            pass
        self._epoch += 1

    def _completes_epoch(self) -> bool:
        """Trains to the end of the epoch; returns False if training was rolled back."""
        self.runner.call_hook('before_train_epoch')
        self.runner.model.train()
        # mmengine's DistSamplerSeedHook sets the epoch too, but a config may lack this hook.
        self.dataloader.sampler.set_epoch(self._epoch)
        first = self.dataloader.sampler.position // self._step_size
        self.dataloader_iterator = iter(self.dataloader)
        for index, batch in enumerate(self.dataloader_iterator, start=first):
            self.run_iter(index, batch)
            if self._roll_back_if_requested():
                return False
        self.runner.call_hook('after_train_epoch')
        return True


class ResumableIterLoop(ResumableLoop, IterBasedTrainLoop):
    """Extends mmengine's iteration-based loop to resume exactly, without pauses between epochs.

    Arguments are those of ``IterBasedTrainLoop``. Data and errors are those of
    :class:`ResumableEpochLoop`.
    """

    endless = True
    unit = 'iter'

    def __init__(self, runner: Runner, dataloader: dict, *args, **kwargs) -> None:
        super().__init__(runner, dataloader, *args, **kwargs)
        runner.param_schedulers = end_schedules(
            runner.param_schedulers, self._max_iters, len(self.dataloader)
        )

    def run(self) -> torch.nn.Module:
        """Trains to the last iteration."""
        self._check_rest()
        self._go_to_position()
        with ending_workers(self):
            return self._run()

    def _run(self) -> torch.nn.Module:
        """Trains to the last iteration, from the position in the data."""
        if self._iter > 0:
            # mmengine's iterator would load all batches up to here once more.
            self.dataloader_iterator = iter(self.dataloader)
        self.runner.call_hook('before_train')
        self.runner.call_hook('before_train_epoch')
        self._complete_validation()
        while self._iter < self._max_iters and not self.stop_training:
            self.runner.model.train()
            self.run_iter(next(self.dataloader_iterator))
            if self._roll_back_if_requested():
                self.dataloader_iterator = iter(self.dataloader)
                continue
            self._decide_current_val_interval()
            if self._validation_is_due():
                self.runner.val_loop.run()
        self.runner.call_hook('after_train_epoch')
        self.runner.call_hook('after_train')
        return self.runner.model
