"""Refuses weights that are NaN or infinite."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor, nn

from .state_dicts import weights_of


def check_finite(weights: Mapping[str, Tensor], source: str) -> None:
    """Raises ValueError if a weight is NaN or infinite.

    The error names the first such tensor and the number of others.

    Args:
        weights: the weights.
        source: the name of the weights in the error.
    """
    bad = []
    for name, tensor in weights.items():
        if tensor.is_floating_point() and not tensor.isfinite().all():
            bad.append(name)
    if bad:
        others = f' and {len(bad) - 1} more tensors' if len(bad) > 1 else ''
        raise ValueError(
            f'{source} holds weights that are NaN or infinite, in {bad[0]}{others}; training '
            'diverged before it was written, so use an earlier checkpoint'
        )


def check_finite_checkpoint(checkpoint: dict, source: str) -> None:
    """Raises ValueError if a checkpoint holds weights that are NaN or infinite."""
    check_finite(weights_of(checkpoint), source)


def check_finite_model(model: nn.Module, source: str) -> None:
    """Raises ValueError if a weight of a model is NaN or infinite."""
    check_finite(dict(model.named_parameters()), source)
