"""Checks values of settings: their kind against what the class that takes them says, and numbers
against a range.
"""

from __future__ import annotations

import math
from typing import Any

from .signatures import kind_of, kinds_of

_BOOLS = ('yes', 'no', 'on', 'off', 'true', 'false')
_KINDS = dict(number='a number', bool='True or False', text='a text', dict='a dict', list='a list')

_AT_LEAST_ONE = {
    'accumulative_counts', 'base_batch_size', 'batch_size', 'bank_size', 'decoder_depth', 'decoder_embed_dim',
    'decoder_num_heads', 'embed_dims', 'feedforward_channels', 'img_size', 'k', 'max_epochs', 'max_iters', 'num_heads',
    'num_layers', 'patch_size', 'patience', 'prefetch_factor', 'repeats', 'val_interval',
}  # fmt: skip
_AT_LEAST_ZERO = {
    'lr',
    'max_refetch',
    'num_workers',
    'val_begin',
    'save_begin',
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
        path: of the dict in the config.
        settings: the dict; anything else is passed over.
        annotations: of the arguments that the settings become, as far as they are known.
        strict: set where every annotation is known to be right.

    Raises:
        ValueError: for a value of another kind, or a number out of its range.
    """
    for name, value in settings.items() if isinstance(settings, dict) else ():
        _check_kind(
            f'{path}.{name}={value!r}', value, kinds_of((annotations or {}).get(name)), strict
        )
        for part in value if isinstance(value, (list, tuple)) else (value,):
            _check_range(f'{path}.{name}={value!r}', name, part)


def _check_kind(setting: str, value: Any, wanted: set[str] | None, strict: bool) -> None:
    """Compares a value with the kinds that its annotation allows."""
    kind = kind_of(value)
    if wanted is None or kind is None or kind in wanted or {kind, *wanted} <= {'number', 'bool'}:
        return
    # Annotations by others are often right for one of several, such as a list of numbers or of
    # dicts.
    if kind == 'list' and wanted & {'number', 'bool', 'dict'}:
        return
    if not strict and kind == 'text' and wanted == {'bool'} and value.lower() not in _BOOLS:
        return
    if not strict and kind == 'number' and 'text' in wanted:
        return
    raise ValueError(
        f'{setting} must be {" or ".join(_KINDS[name] for name in _KINDS if name in wanted)}'
    )


def _check_range(setting: str, name: str, value: Any) -> None:
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
