"""What mmengine notes about every step, without waiting for the GPU and at a cost that does not
grow.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps

import torch
from mmengine.hooks import LoggerHook, RuntimeInfoHook
from mmengine.runner import Runner

from ...utils._compat.mmengine import visualizer_backends
from ..loops.collect import collect_without_disk


class LeanRuntimeInfoHook(RuntimeInfoHook):
    """mmengine's RuntimeInfoHook, with the same scalars in the log, in the checkpoint and in the
    message hub.

    mmengine reads every loss at every step, for which the host waits until the GPU is done. Here
    losses stay on the device until they are looked at: by a logger, by a checkpoint, at the end of
    an epoch. mmengine also copies its whole history at every step, up to a million entries; here it
    ends with the last ``history``.

    Args:
        history: steps that the message hub remembers, at least as many as the longest window of the
            log.
    """

    def __init__(self, history: int = 10_000) -> None:
        self.history = history
        self._unread: list[dict] = []

    def after_train_iter(
        self, runner: Runner, batch_idx: int, data_batch=None, outputs: dict | None = None
    ) -> None:
        """Notes what the step gave."""
        values = dict(outputs or {})
        wrapper = runner.optim_wrapper
        if (
            getattr(wrapper, 'clip_grad_kwargs', None)
            and getattr(wrapper, 'grad_norm', None) is not None
        ):
            values['grad_norm'] = wrapper.grad_norm
        self._unread.append({f'train/{name}': _detached(value) for name, value in values.items()})
        for buffer in runner.message_hub.log_scalars.values():
            buffer.max_length = self.history
        loader = runner.train_dataloader
        for hook in runner.hooks:
            if isinstance(hook, LoggerHook) and (
                self.every_n_inner_iters(batch_idx, hook.interval)
                or self.end_of_epoch(loader, batch_idx)
            ):
                self._read(runner)
        if len(self._unread) >= self.history:
            self._read(runner)

    def after_train_epoch(self, runner: Runner) -> None:
        """Reads what no logger has asked for."""
        self._read(runner)

    def before_save_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Lets a checkpoint hold the losses up to its own step."""
        if self._unread:
            self._read(runner)
            checkpoint['message_hub'] = runner.message_hub.state_dict()

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Drops what was noted on a way that training goes back from."""
        self._unread.clear()

    def _read(self, runner: Runner) -> None:
        """Hands the noted values to the message hub, fetching all of them at once."""
        tensors = [
            value
            for step in self._unread
            for value in step.values()
            if isinstance(value, torch.Tensor)
        ]
        fetched = iter(
            torch.stack([value.double() for value in tensors]).tolist() if tensors else []
        )
        for step in self._unread:
            for name, value in step.items():
                number = next(fetched) if isinstance(value, torch.Tensor) else value
                runner.message_hub.update_scalar(name, number)
        self._unread.clear()


class LenientLoggerHook(LoggerHook):
    """mmengine's LoggerHook, which on a full disk goes without a line of the log instead of ending
    the run.

    The same holds for whatever else is written through the Runner's visualizer, such as panels of
    reconstructions: an error of one of its backends is logged, and the run goes on.
    """

    def before_run(self, runner: Runner) -> None:
        """Lets the visualizer's backends fail without ending the run, and metrics do without the
        disk.
        """
        super().before_run(runner)
        collect_without_disk(runner)
        for backend in visualizer_backends(runner.visualizer):
            for name in _WRITES:
                if write := getattr(backend, name, None):
                    setattr(backend, name, _lenient(write, runner))

    def after_train_iter(self, runner: Runner, *args, **kwargs) -> None:
        """Writes a line where one is due."""
        _lenient(super().after_train_iter, runner)(runner, *args, **kwargs)

    def after_val_iter(self, runner: Runner, *args, **kwargs) -> None:
        """Writes a line where one is due."""
        _lenient(super().after_val_iter, runner)(runner, *args, **kwargs)

    def after_test_iter(self, runner: Runner, *args, **kwargs) -> None:
        """Writes a line where one is due."""
        _lenient(super().after_test_iter, runner)(runner, *args, **kwargs)

    def after_val_epoch(self, runner: Runner, *args, **kwargs) -> None:
        """Writes the metrics."""
        _lenient(super().after_val_epoch, runner)(runner, *args, **kwargs)

    def after_test_epoch(self, runner: Runner, *args, **kwargs) -> None:
        """Writes the metrics."""
        _lenient(super().after_test_epoch, runner)(runner, *args, **kwargs)

    def after_run(self, runner: Runner) -> None:
        """Closes the visualizer, and copies the log where ``out_dir`` says."""
        _lenient(super().after_run, runner)(runner)


# What a backend of mmengine's visualizer writes.
_WRITES = ('add_config', 'add_graph', 'add_image', 'add_scalar', 'add_scalars', 'close')


def _lenient(write: Callable[..., None], runner: Runner) -> Callable[..., None]:
    @wraps(write)
    def attempt(*args, **kwargs) -> None:
        try:
            write(*args, **kwargs)
        except OSError as error:
            runner.logger.error(f'The log could not be written ({error}); the run goes on.')

    return attempt


def _detached(value: object) -> object:
    return value.detach().reshape(()) if isinstance(value, torch.Tensor) else value
