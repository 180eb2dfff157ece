"""Chooses the checkpoint from which a run goes on."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path

from mmengine.logging import print_log

from ...weights.digest import digest_matches
from ...weights.loading import load_from_local
from ..loops.total_batch import stored_batch
from .work_dir import Places

DAMAGED = 'is damaged: its content is not what was written, by the checksum in it'


def resume_point(places: Places) -> Path | None:
    """Chooses the newest good checkpoint of a run; each that is passed over is a warning with its
    reason.

    Returns:
        The checkpoint, or None for a folder without any, where training starts from scratch. The
        log says which.

    Raises:
        ValueError: if there are checkpoints, but none from which a run can go on.
    """
    passed = []
    for path in places.candidates():
        fault, _ = examine(path)
        if fault is None:
            print_log(f'Resuming from {path}.', logger='current')
            return path
        passed.append(f'{path} {fault}')
        _warn(f'{path} {fault}, so training does not resume from it.')
    remedy = (
        'name another one with --resume CHECKPOINT; to start anew, choose another --work-dir or '
        'move these files away'
    )
    if passed:
        raise ValueError(
            f'none of the checkpoints in {places.folder} can be resumed: {"; ".join(passed)}; '
            f'{remedy}'
        )
    if last := places.last_name():
        pointer = places.work_dir / 'last_checkpoint'
        raise ValueError(
            f'{pointer} names {last}, but there is no checkpoint in {places.folder}; {remedy}'
        )
    _warn(
        f'There is no checkpoint in {places.folder} to resume from (looked for {places.template} '
        'and names that end '
        'with a number), so training starts from scratch.'
    )
    return None


def newest_whole_checkpoint(places: Places, last_step: int) -> Path | None:
    """Returns the newest good checkpoint of an iteration up to ``last_step``, or None."""
    for path in places.candidates():
        fault, step = examine(path)
        if fault is None and step <= last_step:
            return path
        if fault is not None:
            _warn(f'{path} {fault}, so training does not go back to it.')
    return None


def examine(path: Path) -> tuple[str | None, int]:
    """Loads a checkpoint on the CPU, as resuming will.

    Returns:
        Why no run can go on from it, as a predicate of the file's name, or None; and its iteration.
    """
    try:
        if not path.exists():
            return 'is a link to nothing', 0
        if not path.is_file():
            return 'is not a regular file', 0
        if digest_matches(path) is False:
            return DAMAGED, 0
        checkpoint = load_from_local(str(path), 'cpu')
        if fault := what_is_missing(checkpoint):
            return fault, 0
        return None, checkpoint['meta']['iter']
    # Whatever a damaged file makes of its reader is no reason to end the run while there is another
    # checkpoint.
    except Exception as error:
        sentence = ' '.join(str(error).split()).removeprefix(f'{path} ') or type(error).__name__
        return f'is damaged or no checkpoint ({sentence[:200]})', 0


def what_is_missing(checkpoint: object) -> str | None:
    """Returns what of a run is not in a checkpoint, as a predicate, or None if all is there."""
    if not isinstance(checkpoint, Mapping):
        return f'holds a {type(checkpoint).__name__}, not a run'
    meta = checkpoint.get('meta')
    if not meta:
        return 'holds weights alone, not the run that they come from'
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
        stored_batch(meta)
    except ValueError as error:
        return str(error)
    return None


def _warn(sentence: str) -> None:
    print_log(sentence, logger='current', level=logging.WARNING)
