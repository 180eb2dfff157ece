"""Checks the values of settings: their kinds against annotations, and numbers against ranges."""

from __future__ import annotations

import math
from typing import Any

from .signatures import kind_of, kinds_of

_BOOLS = ('yes', 'no', 'on', 'off', 'true', 'false')
_KINDS = dict(number='a number', bool='True or False', text='a text', dict='a dict', list='a list')

# Names of settings with a range, wherever they occur in a config.
_AT_LEAST_ONE = {
    'accumulative_counts',
    'base_batch_size',
    'batch_size',
    'bank_size',
    'decoder_depth',
    'decoder_embed_dim',
    'decoder_num_heads',
    'embed_dims',
    'feedforward_channels',
    'img_size',
    'k',
    'max_epochs',
    'max_iters',
    'num_heads',
    'num_layers',
    'patch_size',
    'patience',
    'prefetch_factor',
    'repeats',
    'val_interval',
}
_AT_LEAST_ZERO = {
    'lr',
    'max_refetch',
    'num_workers',
    'save_begin',
    'val_begin',
    'warmup',
    'weight_decay',
}
_SHARES = {'drop_path_rate', 'drop_rate', 'prob', 'layer_decay_rate'}
_WHOLE = (_AT_LEAST_ONE | {'num_workers', 'max_keep_ckpts', 'interval', 'seed'}) - {
    'base_batch_size'
}


def check_values(
    path: str, settings: Any, annotations: dict[str, Any] | None = None, strict: bool = False
) -> None:
    """Checks every value of a dict of settings.

    Args:
        path: path of the dict in the config.
        settings: the dict; any other value is skipped.
        annotations: annotations of the arguments that the settings become, as far as known.
        strict: whether the annotations are reliable.

    Raises:
        ValueError: for a value of another kind, or a number out of its range.
    """
    if not isinstance(settings, dict):
        return
    for name, value in settings.items():
        setting = f'{path}.{name}={value!r}'
        _check_kind(setting, value, kinds_of((annotations or {}).get(name)), strict)
        for part in value if isinstance(value, (list, tuple)) else (value,):
            _check_range(setting, name, part)


def _check_kind(setting: str, value: Any, allowed: set[str] | None, strict: bool) -> None:
    """Raises ValueError if a value is not of a kind that its annotation allows."""
    kind = kind_of(value)
    if allowed is None or kind is None or kind in allowed or {kind, *allowed} <= {'number', 'bool'}:
        return
    # Annotations in other packages often name one of several kinds, such as a number for a list.
    if kind == 'list' and allowed & {'number', 'bool', 'dict'}:
        return
    if not strict and kind == 'text' and allowed == {'bool'} and value.lower() not in _BOOLS:
        return
    if not strict and kind == 'number' and 'text' in allowed:
        return
    expected = ' or '.join(title for name, title in _KINDS.items() if name in allowed)
    raise ValueError(f'{setting} must be {expected}')


def _check_range(setting: str, name: str, value: Any) -> None:
    """Raises ValueError if a number is out of the range of its setting."""
    if name not in _AT_LEAST_ONE | _AT_LEAST_ZERO | _SHARES | _WHOLE:
        return
    if isinstance(value, str) and name != 'img_size':
        raise ValueError(f'{setting} must be a number')
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return
    if not math.isfinite(value):
        raise ValueError(f'{setting} must be a finite number')
    if name in _WHOLE and value != int(value):
        raise ValueError(f'{setting} must be a whole number')
    if name in _AT_LEAST_ONE and value < 1:
        raise ValueError(f'{setting} must be at least 1')
    if name in _AT_LEAST_ZERO and value < 0:
        raise ValueError(f'{setting} must not be negative')
    if name in _SHARES and not 0 <= value <= 1:
        raise ValueError(f'{setting} must be between 0 and 1')
    if name == 'seed' and not 0 <= value < 2**32:
        raise ValueError(f'{setting} must be between 0 and 4294967295')
