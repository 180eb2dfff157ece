"""Sizes and capabilities of the parts of an MAE: backbone, decoder and head."""

from __future__ import annotations

import math

from mmpretrain.registry import MODELS
from torch import Tensor, nn

from .mae_decoder import MAEPretrainDecoder
from .mae_head import MAEPretrainHead
from .mae_vit import MAEViT
from .patches import to_pair

# The loss is computed from the removed patches alone if every part supports it. For each part, the
# attribute that states the capability, and the methods that must keep it when they are overridden.
CAPABILITIES = dict(
    backbone=('encodes_maskings', ('forward',)),
    neck=('predicts_removed_only', ('forward',)),
    head=('has_loss_of_removed', ('loss', 'construct_target')),
)


def why_incapable(part: nn.Module, capability: str, methods: tuple[str, ...]) -> str | None:
    """Returns why a part lacks a capability, None if it has the capability.

    Args:
        part: the backbone, decoder or head.
        capability: name of the attribute that states the capability.
        methods: methods that must keep the capability. A class that overrides one of them has to
            state the capability again.
    """
    kind = type(part).__name__
    if not getattr(part, capability, False):
        return f'{kind} does not set {capability} = True'
    for method in methods:
        if _is_overridden(part, method, capability):
            return f'{kind} overrides {method} and does not set {capability} = True beside it'
    return None


def _is_overridden(part: nn.Module, method: str, capability: str) -> bool:
    """Returns whether a method is defined in a more derived class than a capability is."""
    if method in vars(part):
        return True
    for cls in type(part).__mro__:
        if capability in vars(cls):
            return False
        if method in vars(cls):
            return True
    return False


def check_prediction(neck: nn.Module | None, head: nn.Module | None) -> None:
    """Raises ValueError if our decoder predicts another number of pixels than our head expects."""
    if not isinstance(neck, MAEPretrainDecoder) or not isinstance(head, MAEPretrainHead):
        return
    predicted = neck.decoder_pred.out_features
    pixels = math.prod(head.patch_size) * head.in_channels
    if predicted != pixels:
        raise ValueError(
            f'the decoder predicts {predicted} numbers per patch, but a patch has {pixels} pixels'
        )


def check_means(data_preprocessor: nn.Module, backbone: nn.Module) -> None:
    """Raises ValueError if images are normalized with another number of channels than encoded."""
    mean = getattr(data_preprocessor, 'mean', None)
    if not isinstance(mean, Tensor) or not isinstance(backbone, MAEViT):
        return
    if len(mean) not in (1, backbone.in_channels):
        raise ValueError(
            f'the data_preprocessor has a mean of {len(mean)} channels, but the backbone takes '
            f'{backbone.in_channels}; give one value per channel (BandDataPreprocessor takes '
            'any number of them)'
        )


def fill_sizes(part: dict | nn.Module | None, kind: type, sizes: dict) -> dict | nn.Module | None:
    """Returns a config with the backbone's sizes filled in; checks the sizes of a module.

    Args:
        part: config or module of the decoder or head; other classes than ``kind`` are unchanged.
        kind: our class of that part.
        sizes: the backbone's sizes by the names of the arguments of ``kind``.

    Raises:
        ValueError: if ``part`` has a size that differs from the backbone's.
    """
    cls = part.get('type') if isinstance(part, dict) else type(part)
    if isinstance(cls, str):
        cls = MODELS.get(cls)
    if cls is None or not issubclass(cls, kind):
        return part
    given = part if isinstance(part, dict) else vars(part)
    for name, size in sizes.items():
        own = given.get(name)
        if own is None:
            continue
        comparable = own if isinstance(size, int) else to_pair(own)
        if comparable != size:
            raise ValueError(
                f'{kind.__name__} was given {name}={own}, but the backbone has {size}; leave '
                f'{name} out to take it'
            )
    return {**part, **sizes} if isinstance(part, dict) else part
