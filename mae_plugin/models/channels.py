"""Weights of the first and the last layer for images of another number of channels.

Imports torch alone.
"""

from __future__ import annotations

import torch
from torch import Tensor


def spread_input(weight: Tensor, channels: int) -> Tensor:
    """Returns a patch projection for images of another number of channels.

    Channel j of the larger set is paired with channel j mod n, where n is the size of the smaller
    set. The weight of an old channel is shared equally by the new channels that are paired with it,
    so that an image of N equal channels gives the tokens that one of C equal channels gave.

    Args:
        weight: (D, C, ph, pw).
        channels: the new number N of channels.

    Returns:
        (D, N, ph, pw).
    """
    paired = _pairs(weight.shape[1], channels)  # (N, C)
    shares = (paired / paired.sum(dim=0)).to(weight)
    return torch.einsum('nc,dchw->dnhw', shares, weight)


def spread_prediction(tensor: Tensor, before: int, after: int) -> Tensor:
    """Returns weight or bias of a layer that predicts patches of another number of channels.

    A new channel is predicted as the mean of the old ones that it is paired with (see
    :func:`spread_input`).

    Args:
        tensor: (ph * pw * before, ...), rows in the order of pixels, channels innermost.
        before: the old number of channels.
        after: the new number of channels.

    Returns:
        (ph * pw * after, ...).
    """
    paired = _pairs(before, after)  # (after, before)
    means = (paired / paired.sum(dim=1, keepdim=True)).to(tensor)
    pixels = tensor.unflatten(0, (-1, before))  # (ph * pw, before, ...)
    return torch.einsum('nc,pc...->pn...', means, pixels).flatten(0, 1)


def _pairs(before: int, after: int) -> Tensor:
    """Returns (after, before), 1 where a new channel is paired with an old one, else 0."""
    old = torch.arange(before)
    new = torch.arange(after).unsqueeze(1)
    return ((new - old) % min(before, after) == 0).float()
