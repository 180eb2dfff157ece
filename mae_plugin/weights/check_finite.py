"""Weights that are not finite numbers are refused wherever weights are put to use."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor, nn

from .state_dicts import weights_of


def check_finite(weights: Mapping[str, Tensor], source: str) -> None:
    """Raises ValueError if a weight is NaN or infinite; the sentence names the first one and counts
    the others.
    """
    bad = [
        name
        for name, tensor in weights.items()
        if tensor.is_floating_point() and not tensor.isfinite().all()
    ]
    if bad:
        others = f' and {len(bad) - 1} more tensors' if len(bad) > 1 else ''
        raise ValueError(
            f'{source} holds weights that are NaN or infinite, in {bad[0]}{others}; training went '
            'wrong before it was '
            'written, so use an earlier checkpoint'
        )


def check_finite_checkpoint(checkpoint: dict, source: str) -> None:
    """Raises ValueError if a checkpoint, as it was read, holds weights that are NaN or infinite."""
    check_finite(weights_of(checkpoint), source)


def check_finite_model(model: nn.Module, source: str) -> None:
    """Raises ValueError if a weight of a model is NaN or infinite."""
    check_finite(dict(model.named_parameters()), source)
