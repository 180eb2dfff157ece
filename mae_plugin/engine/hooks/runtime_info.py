"""Logs every step without waiting for the GPU, at a constant cost per step."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps

import torch
from mmengine.hooks import LoggerHook, RuntimeInfoHook
from mmengine.runner import Runner

from ...utils._compat.mmengine import visualizer_backends
from ..loops.collect import collect_without_disk

# Methods by which a backend of mmengine's visualizer writes.
_WRITES = ('add_config', 'add_graph', 'add_image', 'add_scalar', 'add_scalars', 'close')


class LeanRuntimeInfoHook(RuntimeInfoHook):
    """Extends mmengine's RuntimeInfoHook by reading losses only when they are needed.

    Log, checkpoint and message hub hold the same scalars as mmengine's. mmengine reads every loss
    at every step, for which the host waits for the GPU. Here losses stay on the device until a
    logger or a checkpoint needs them, or an epoch ends. mmengine also copies its whole history of
    up to a million entries at every step; here the history has a fixed length.

    Args:
        history: number of steps in the message hub, at least the longest window of the log.
    """

    def __init__(self, history: int = 10_000) -> None:
        self.history = history
        self._unread: list[dict] = []

    def after_train_iter(
        self, runner: Runner, batch_idx: int, data_batch=None, outputs: dict | None = None
    ) -> None:
        """Stores the outputs of the step, and reads them if a logger is about to."""
        values = dict(outputs or {})
        wrapper = runner.optim_wrapper
        grad_norm = getattr(wrapper, 'grad_norm', None)
        if getattr(wrapper, 'clip_grad_kwargs', None) and grad_norm is not None:
            values['grad_norm'] = grad_norm
        self._unread.append({f'train/{name}': _detached(value) for name, value in values.items()})
        # mmengine copies a whole buffer at every update.
        for buffer in runner.message_hub.log_scalars.values():
            buffer.max_length = self.history
        if self._logger_is_due(runner, batch_idx) or len(self._unread) >= self.history:
            self._read(runner)

    def _logger_is_due(self, runner: Runner, batch_idx: int) -> bool:
        """Returns whether a logger writes a line after this step."""
        is_last = self.end_of_epoch(runner.train_dataloader, batch_idx)
        loggers = [hook for hook in runner.hooks if isinstance(hook, LoggerHook)]
        return any(
            is_last or self.every_n_inner_iters(batch_idx, logger.interval) for logger in loggers
        )

    def after_train_epoch(self, runner: Runner) -> None:
        """Reads the values that no logger has read."""
        self._read(runner)

    def before_save_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Adds the losses up to the present step to a checkpoint."""
        if self._unread:
            self._read(runner)
            checkpoint['message_hub'] = runner.message_hub.state_dict()

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Drops the values of steps from which training is rolled back."""
        self._unread.clear()

    def _read(self, runner: Runner) -> None:
        """Moves the stored values to the message hub, and fetches all of them at once."""
        tensors = [
            value
            for step in self._unread
            for value in step.values()
            if isinstance(value, torch.Tensor)
        ]
        numbers = []
        if tensors:
            # One transfer from the device for all values.
            numbers = torch.stack([value.double() for value in tensors]).tolist()
        fetched = iter(numbers)
        for step in self._unread:
            for name, value in step.items():
                number = next(fetched) if isinstance(value, torch.Tensor) else value
                runner.message_hub.update_scalar(name, number)
        self._unread.clear()


class LenientLoggerHook(LoggerHook):
    """Extends mmengine's LoggerHook by surviving a full disk: a lost line does not end the run.

    The same holds for everything that is written through the Runner's visualizer, such as panels of
    reconstructions: an error of one of its backends is logged, and the run continues.
    """

    def before_run(self, runner: Runner) -> None:
        """Makes errors of the visualizer's backends non-fatal, and collects metrics without disk."""
        super().before_run(runner)
        collect_without_disk(runner)
        for backend in visualizer_backends(runner.visualizer):
            for name in _WRITES:
                if write := getattr(backend, name, None):
                    setattr(backend, name, _lenient(write, runner))

    def after_train_iter(self, runner: Runner, *args, **kwargs) -> None:
        """Writes a line every ``interval`` iterations."""
        _lenient(super().after_train_iter, runner)(runner, *args, **kwargs)

    def after_val_iter(self, runner: Runner, *args, **kwargs) -> None:
        """Writes a line every ``interval`` iterations."""
        _lenient(super().after_val_iter, runner)(runner, *args, **kwargs)

    def after_test_iter(self, runner: Runner, *args, **kwargs) -> None:
        """Writes a line every ``interval`` iterations."""
        _lenient(super().after_test_iter, runner)(runner, *args, **kwargs)

    def after_val_epoch(self, runner: Runner, *args, **kwargs) -> None:
        """Writes the metrics."""
        _lenient(super().after_val_epoch, runner)(runner, *args, **kwargs)

    def after_test_epoch(self, runner: Runner, *args, **kwargs) -> None:
        """Writes the metrics."""
        _lenient(super().after_test_epoch, runner)(runner, *args, **kwargs)

    def after_run(self, runner: Runner) -> None:
        """Closes the visualizer, and copies the log to ``out_dir``."""
        _lenient(super().after_run, runner)(runner)


def _lenient(write: Callable[..., None], runner: Runner) -> Callable[..., None]:
    """Wraps a function so that an OSError is logged instead of raised."""

    @wraps(write)
    def attempt(*args, **kwargs) -> None:
        try:
            write(*args, **kwargs)
        except OSError as error:
            runner.logger.error(f'The log could not be written ({error}); the run continues.')

    return attempt


def _detached(value: object) -> object:
    """Returns a tensor as a detached scalar; other values are returned as they are."""
    return value.detach().reshape(()) if isinstance(value, torch.Tensor) else value
