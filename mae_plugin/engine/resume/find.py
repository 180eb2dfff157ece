"""Chooses the checkpoint from which a run resumes or to which it is rolled back."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping
from pathlib import Path

from mmengine.logging import print_log

from ...weights.digest import digest_matches
from ...weights.loading import load_from_local
from ..state import RunState
from .work_dir import CheckpointPaths

DAMAGED = 'is damaged: its content does not match its checksum'
# Characters of an error of a damaged file's reader that a log line repeats.
_ERROR_LENGTH = 200


def choose(paths: CheckpointPaths, named: str | None) -> tuple[str | None, str | None]:
    """Chooses the checkpoint to resume from, or verifies the checksum of a named one.

    Returns:
        The checkpoint, or None to start from scratch; and an error message or None. The caller
        raises the error on all ranks, as one that ended alone would leave the others waiting.
    """
    try:
        if named is None:
            path = resume_point(paths)
            return (None if path is None else str(path)), None
        if os.path.isfile(named) and digest_matches(named) is False:
            return named, f'{named} {DAMAGED}; resume from another one'
        return named, None
    except ValueError as error:
        return None, str(error)


def resume_point(paths: CheckpointPaths) -> Path | None:
    """Chooses the newest good checkpoint of a run, and logs why newer ones are skipped.

    Returns:
        The checkpoint, or None for a folder without any, where training starts from scratch. The
        log states which.

    Raises:
        ValueError: if there are checkpoints, but none from which a run can resume.
    """
    skipped = []
    for path in paths.candidates():
        fault, _ = examine(path)
        if fault is None:
            print_log(f'Resuming from {path}.', logger='current')
            return path
        skipped.append(f'{path} {fault}')
        _warn(f'{path} {fault}, so training does not resume from it.')
    remedy = (
        'set load_from to another one; to start anew, choose another work_dir or move these files '
        'away'
    )
    if skipped:
        raise ValueError(
            f'none of the checkpoints in {paths.folder} can be resumed: {"; ".join(skipped)}; '
            f'{remedy}'
        )
    if last := paths.last_name():
        pointer = paths.work_dir / 'last_checkpoint'
        raise ValueError(
            f'{pointer} names {last}, but there is no checkpoint in {paths.folder}; {remedy}'
        )
    _warn(
        f'There is no checkpoint in {paths.folder} to resume from (names like {paths.template} '
        'or with a number at the end), so training starts from scratch.'
    )
    return None


def newest_whole_checkpoint(paths: CheckpointPaths, last_step: int) -> Path | None:
    """Returns the newest good checkpoint of an iteration up to ``last_step``, or None."""
    for path in paths.candidates():
        fault, step = examine(path)
        if fault is None and step <= last_step:
            return path
        if fault is not None:
            _warn(f'{path} {fault}, so training does not roll back to it.')
    return None


def examine(path: Path) -> tuple[str | None, int]:
    """Loads a checkpoint on the CPU as resuming would, and checks it.

    Returns:
        The reason why no run can resume from it, as a predicate of the file's name, or None; and
        its iteration.
    """
    try:
        if not path.exists():
            return 'is a broken link', 0
        if not path.is_file():
            return 'is not a regular file', 0
        if digest_matches(path) is False:
            return DAMAGED, 0
        checkpoint = load_from_local(str(path), 'cpu')
        if fault := find_fault(checkpoint):
            return fault, 0
        return None, checkpoint['meta']['iter']
    except Exception as error:
        # A damaged file can raise any error, and another checkpoint may still be good.
        sentence = ' '.join(str(error).split()).removeprefix(f'{path} ') or type(error).__name__
        return f'is damaged or not a checkpoint ({sentence[:_ERROR_LENGTH]})', 0


def find_fault(checkpoint: object) -> str | None:
    """Returns why a run cannot resume from a loaded checkpoint, as a predicate, or None."""
    if not isinstance(checkpoint, Mapping):
        return f'holds a {type(checkpoint).__name__}, not a run'
    meta = checkpoint.get('meta')
    if not meta:
        return 'holds weights alone, not the run that trained them'
    if not isinstance(meta, Mapping):
        return f"holds a {type(meta).__name__} as 'meta', not the position of a run"
    for name in ('epoch', 'iter'):
        number = meta.get(name)
        if not isinstance(number, int) or isinstance(number, bool) or number < 0:
            return f"holds {number!r} as meta['{name}'], not a number of steps"
    for name in ('state_dict', 'message_hub'):
        if not isinstance(checkpoint.get(name), Mapping):
            return f"holds no '{name}'"
    try:
        RunState.from_checkpoint(checkpoint)
    except ValueError as error:
        return str(error)
    return None


def _warn(sentence: str) -> None:
    """Logs a warning."""
    print_log(sentence, logger='current', level=logging.WARNING)
