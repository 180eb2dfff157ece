"""Stores the state of a run in checkpoints, and restores it before the run resumes.

The training loops register this hook, unless the Runner has a subclass of it, such as
SafeCheckpointHook. The state itself is ``engine/state.py``, and the comparisons with the present
run are ``engine/resume/same_run.py``.
"""

from __future__ import annotations

from dataclasses import replace

from mmengine.hooks import Hook
from mmengine.runner import Runner

from ...utils._compat.mmengine import has_loaded, is_resuming, load_source
from ..resume.same_run import (
    compare_data,
    compare_optimizer,
    compare_schedules,
    convert_steps,
    describe_data,
)
from ..state import KEY, RunState, TrainingData, state_of


class RunStateHook(Hook):
    """Writes the RunState of the training loop to checkpoints, and reads it back on resume."""

    def before_save_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Adds the state to the ``meta`` of a checkpoint."""
        state = state_of(runner)
        if state is None:
            return
        state.data = self._describe_data(runner, state)
        state.optimizer = type(getattr(runner.optim_wrapper, 'optimizer', None)).__name__
        checkpoint['meta'][KEY] = state.to_plain()

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Compares the run of a checkpoint with the present one, and restores its state.

        A checkpoint that only initializes the weights (``load_from`` without ``resume``) changes
        nothing.

        Raises:
            ValueError: if the run cannot resume from this checkpoint.
        """
        state = state_of(runner)
        if state is None:
            return
        rolls_back = getattr(runner.train_loop, 'is_rolling_back', False)
        if not (is_resuming(runner) or has_loaded(runner) or rolls_back):
            return
        source = str(load_source(runner) or 'the checkpoint')
        try:
            stored = RunState.from_checkpoint(checkpoint)
        except ValueError as error:
            raise ValueError(f'{source} {error}') from None
        compare_optimizer(checkpoint, runner.optim_wrapper, source)
        compare_schedules(checkpoint, runner.param_schedulers, source)
        data = self._describe_data(runner, state)
        compare_data(stored.data, data)
        if state.total_batch is not None:
            convert_steps(checkpoint, state.total_batch)
        # Progress comes from the checkpoint, and everything else describes the present run.
        runner.train_loop.state = replace(
            stored, total_batch=state.total_batch, data=data, optimizer=state.optimizer
        )

    @staticmethod
    def _describe_data(runner: Runner, state: RunState) -> TrainingData | None:
        """Describes the training data once per run, as a dataset may have many names."""
        return state.data or describe_data(runner.train_dataloader.dataset)
