"""State that a run must remember beyond mmengine's own, stored under one key of a checkpoint.

The state lives on the training loop (``runner.train_loop.state``). ``RunStateHook`` writes it to
``meta['mae_plugin']`` of every checkpoint as plain data, and reads it back before a run resumes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

from mmengine.runner import Runner

from ..utils._compat.mmengine import built_loop
from .loops.total_batch import TotalBatch

KEY = 'mae_plugin'
"""The key of the state in the ``meta`` of a checkpoint."""
VERSION = 1
"""The version of the stored form. A change that older code would misread raises it by one."""

# Entries of the message hub and of ``meta`` in checkpoints that were written before version 1.
_OLD_HUB = ('data_position', 'times_gone_back', 'last_validated_at', 'checkpoint_between')
_OLD_META = ('batch', 'data', 'optimizer')


@dataclass(frozen=True)
class TrainingData:
    """Description of the training data, to detect that the data have changed.

    Attributes:
        samples: length of the dataset.
        digest: digest of the names of all samples; None if it would be expensive to compute.
    """

    samples: int
    digest: str | None = None


@dataclass
class RunState:
    """State of a run beyond mmengine's own.

    Attributes:
        epoch: epoch of the position in the data.
        samples: samples of that epoch, over all ranks, that are trained.
        rollbacks: number of times that training was rolled back to a checkpoint.
        last_validation: epoch and iteration of the last validation that was completed.
        extra_checkpoint: file name of a checkpoint between two regular ones. The next regular
            checkpoint replaces it.
        total_batch: composition of the total batch; None for mmengine's loops.
        data: description of the training data; None if its length is unknown.
        optimizer: class name of the optimizer.
    """

    epoch: int = 0
    samples: int = 0
    rollbacks: int = 0
    last_validation: tuple[int, int] | None = None
    extra_checkpoint: str | None = None
    total_batch: TotalBatch | None = None
    data: TrainingData | None = None
    optimizer: str | None = None

    def to_plain(self) -> dict:
        """Returns the state as plain data, with its version."""
        plain = dict(version=VERSION, **asdict(self))
        if self.last_validation is not None:
            plain['last_validation'] = list(self.last_validation)
        return plain

    @classmethod
    def from_checkpoint(cls, checkpoint: Mapping) -> RunState:
        """Reads and checks the state in a checkpoint; an older checkpoint is migrated in place.

        Raises:
            ValueError: if a value is not valid, or a newer version wrote the state. The message is
                a predicate of the checkpoint's name, such as "holds …".
        """
        if KEY not in checkpoint['meta']:
            migrate(checkpoint)
        return _read(checkpoint['meta'][KEY])


def state_of(runner: Runner) -> RunState | None:
    """Returns the state of a run, or None if the run does not train.

    The loops of this plugin have a state from the start. A loop of mmengine gets one here.
    """
    loop = built_loop(runner, 'train')
    if loop is not None and not hasattr(loop, 'state'):
        loop.state = RunState()
    return None if loop is None else loop.state


def migrate(checkpoint: Mapping) -> None:
    """Rewrites, in place, the state in a checkpoint that was written before version 1.

    Such a checkpoint has entries in the message hub and in ``meta``. One of mmengine's own loops
    has none of them, and gets an empty state.

    Raises:
        ValueError: if the composition of the total batch is not valid.
    """
    meta, hub = checkpoint['meta'], checkpoint.get('message_hub')
    hub = hub if isinstance(hub, Mapping) else {}
    # `resumed_keys` lists the entries that mmengine loads, and warns of missing ones.
    infos, resumed_keys = hub.get('runtime_info') or {}, hub.get('resumed_keys') or {}
    old = {name: infos.pop(name, None) for name in _OLD_HUB}
    for name in _OLD_HUB:
        resumed_keys.pop(name, None)
    old |= {name: meta.pop(name, None) for name in _OLD_META}

    epoch, samples = _pair(old['data_position'] or (0, 0), 'data_position')
    plain = dict(
        version=VERSION,
        epoch=epoch,
        samples=samples,
        rollbacks=old['times_gone_back'] or 0,
        last_validation=old['last_validated_at'],
        extra_checkpoint=old['checkpoint_between'],
        total_batch=None,
        data=None,
        optimizer=old['optimizer'],
    )
    if old['batch'] is not None:
        plain['total_batch'] = _name_numbers(old['batch'])
    if isinstance(old['data'], Mapping) and 'samples' in old['data']:
        plain['data'] = dict(samples=old['data']['samples'], digest=old['data'].get('names'))
    meta[KEY] = plain


def _name_numbers(batch: object) -> dict:
    """Names the numbers of an old ``meta['batch']``, which has three or four of them."""
    if not isinstance(batch, (list, tuple)) or len(batch) not in (3, 4):
        raise ValueError(
            f"holds {batch!r:.80} as meta['batch'], not the numbers of GPUs, images and "
            'accumulated steps'
        )
    return dict(zip(('gpus', 'batch_size', 'accumulate', 'repeats'), [*batch, 1], strict=False))


def _read(stored: object) -> RunState:
    """Checks a stored state, and builds a RunState from it."""
    if not isinstance(stored, Mapping):
        raise ValueError(f"holds {stored!r:.80} as meta['{KEY}'], not the state of a run")
    version = _number(stored, 'version', least=1)
    if version > VERSION:
        raise ValueError(
            f'was written by a newer version of mae_plugin (run state {version}, and this version '
            f'reads {VERSION}); update mae_plugin to resume from it'
        )
    last_validation = stored.get('last_validation')
    if last_validation is not None:
        last_validation = _pair(last_validation, 'last_validation')
    return RunState(
        epoch=_number(stored, 'epoch'),
        samples=_number(stored, 'samples'),
        rollbacks=_number(stored, 'rollbacks'),
        last_validation=last_validation,
        extra_checkpoint=_file_name(stored),
        total_batch=_total_batch(stored.get('total_batch')),
        data=_data(stored.get('data')),
        optimizer=_text(stored, 'optimizer'),
    )


def _number(values: Mapping, name: str, least: int = 0, where: str = '') -> int:
    """Returns a whole number of at least ``least`` from a stored dict."""
    number = values.get(name)
    # Not isinstance, as True is an int too.
    if type(number) is not int or number < least:
        raise ValueError(
            f"holds {number!r:.80} as meta['{KEY}']{where}['{name}'], not a whole number of at "
            f'least {least}'
        )
    return number


def _text(values: Mapping, name: str, where: str = '') -> str | None:
    """Returns a string or None from a stored dict."""
    text = values.get(name)
    if not isinstance(text, (str, type(None))):
        raise ValueError(f"holds {text!r:.80} as meta['{KEY}']{where}['{name}'], not a string")
    return text


def _file_name(stored: Mapping) -> str | None:
    """Returns the name of the extra checkpoint, which must not lead out of the folder."""
    name = _text(stored, 'extra_checkpoint')
    # The file of this name is removed later.
    if name is not None and (not name or '/' in name or '\\' in name):
        raise ValueError(
            f"holds {name!r:.80} as meta['{KEY}']['extra_checkpoint'], not a file name"
        )
    return name


def _pair(numbers: object, name: str) -> tuple[int, int]:
    """Returns a stored pair of whole numbers."""
    is_pair = isinstance(numbers, (list, tuple)) and len(numbers) == 2
    pair: Any = numbers
    if not is_pair or any(type(number) is not int or number < 0 for number in pair):
        raise ValueError(f'holds {numbers!r:.80} as {name}, not two whole numbers')
    return pair[0], pair[1]


def _total_batch(stored: object) -> TotalBatch | None:
    """Returns the composition of the total batch."""
    if stored is None:
        return None
    where = "['total_batch']"
    if not isinstance(stored, Mapping):
        raise ValueError(f"holds {stored!r:.80} as meta['{KEY}']{where}, not named numbers")
    numbers = {}
    for field in fields(TotalBatch):
        numbers[field.name] = _number(stored, field.name, least=1, where=where)
    return TotalBatch(**numbers)


def _data(stored: object) -> TrainingData | None:
    """Returns the description of the training data."""
    if stored is None:
        return None
    where = "['data']"
    if not isinstance(stored, Mapping):
        raise ValueError(f"holds {stored!r:.80} as meta['{KEY}']{where}, not a description of data")
    samples = _number(stored, 'samples', where=where)
    return TrainingData(samples, _text(stored, 'digest', where))
