"""Renames weights between the layouts of :mod:`.layouts`, to mmpretrain's names and from them."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection

import torch
from mmengine.logging import print_log
from torch import Tensor

from .layouts import (
    DETECTED,
    KINDS,
    LAYOUTS,
    Content,
    detect,
    extras_of,
    has_place,
    in_table_spelling,
    key_pairs,
    keys_of,
)

# Of mmpretrain's ClsBatchNormNeck.
_BATCH_NORM_EPS = 1e-6


def to_mmpretrain(state_dict: dict[str, Tensor]) -> dict[str, Tensor]:
    """Renames weights of any layout to mmpretrain's names, ``backbone.`` first.

    An encoder alone is named ``backbone.`` too.

    Raises:
        ValueError: naming the keys that are unknown or missing, if the weights are not exactly of
            one layout.
    """
    content = detect(state_dict)
    if content is None:
        raise ValueError(_describe_mismatch(state_dict))
    state = in_table_spelling(state_dict, content.layout)
    if len(state) < len(state_dict):
        extras = _summary(extras_of(state_dict, content.layout))
        print_log(f'Left out {extras}, which the network does not use.', 'current')
    renamed = {}
    for ours, theirs in key_pairs(content.kind, content.layout, state):
        parts = [state[key] for key in theirs]
        renamed[ours] = torch.cat(parts) if len(parts) > 1 else parts[0]
    return renamed


def from_mmpretrain(state_dict: dict[str, Tensor], layout: str) -> dict[str, Tensor]:
    """Renames weights from mmpretrain's names to another layout; inverse of :func:`to_mmpretrain`.

    The decoder is left out for timm. The BatchNorm of a linear probe is folded into the classifier
    for layouts without it. Either is a log line.

    Raises:
        ValueError: if the layout cannot hold such weights, or they are not in mmpretrain's layout.
    """
    if layout not in LAYOUTS:
        raise ValueError(f'there is no layout {layout!r}; there are {", ".join(LAYOUTS)}')
    content = detect(state_dict)
    if content is None:
        raise ValueError(_describe_mismatch(state_dict))
    if content.layout != 'mmpretrain':
        raise ValueError(f'the weights are in {content}, not mmpretrain')
    state, kind = in_table_spelling(state_dict, 'mmpretrain'), content.kind
    if kind == 'pre-training' and layout == 'timm':
        state, kind = encoder_of(state), 'encoder'
        print_log('Left out the decoder, for which timm has no model.', 'current')
    if 'probe' in kind and layout in ('timm', 'hf'):
        state, kind = _fold_batch_norm(state), kind.replace('linear probe', 'classifier')
        print_log(
            f"Folded the linear probe's BatchNorm into the classifier, as {layout} has none.",
            'current',
        )
    if not has_place(layout, kind):
        raise ValueError(
            f'layout {layout} has no place for these weights ({kind}): its models have a '
            'LayerNorm after the last layer and classify the class token; mmpretrain, mae and timm '
            'hold them'
        )
    renamed: dict[str, Tensor] = {}
    for ours, theirs in key_pairs(kind, layout, state, from_hub=True):
        parts = state[ours].chunk(len(theirs)) if len(theirs) > 1 else [state[ours]]
        renamed.update(zip(theirs, parts, strict=True))
    if (layout, kind) == ('hf', 'encoder'):
        # Hugging Face's models without a head have no prefix.
        renamed = {key.removeprefix('vit.'): tensor for key, tensor in renamed.items()}
    return renamed


def encoder_of(state_dict: dict[str, Tensor]) -> dict[str, Tensor]:
    """Returns the encoder among weights of mmpretrain's layout, still named ``backbone.*``."""
    return {key: tensor for key, tensor in state_dict.items() if key.startswith('backbone.')}


def _fold_batch_norm(state_dict: dict[str, Tensor]) -> dict[str, Tensor]:
    """Returns weights with W (x - mean) / sqrt(var + eps) + b as one linear layer."""
    state = {key: tensor for key, tensor in state_dict.items() if not key.startswith('neck.bn.')}
    (weight,) = (key for key in state if re.fullmatch(r'head\..*weight', key))
    bias = weight.replace('weight', 'bias')
    # In float64, because the statistics may differ by orders of magnitude.
    mean = state_dict['neck.bn.running_mean'].double()
    var = state_dict['neck.bn.running_var'].double()
    scaled = state[weight].double() / (var + _BATCH_NORM_EPS).sqrt()
    shifted = state[bias].double() - scaled @ mean
    state[weight] = scaled.to(state[weight].dtype)
    state[bias] = shifted.to(state[bias].dtype)
    return state


def _describe_mismatch(state_dict: dict[str, Tensor]) -> str:
    """Describes how weights differ from the nearest layout."""
    best_score, best = 0, None
    for layout in DETECTED:
        keys = set(in_table_spelling(state_dict, layout))
        for kind in KINDS:
            wanted = keys_of(kind, layout, keys)
            score = len(wanted & keys) - len(wanted - keys)
            if score > best_score:
                best_score = score
                best = Content(layout, kind), keys - wanted, wanted - keys
    if best is None:
        return (
            f'the weights are in none of the layouts {", ".join(LAYOUTS)}: they hold '
            f'{_summary(state_dict)}'
        )
    content, unknown, missing = best
    reasons = []
    if unknown:
        reasons.append(f'hold {_summary(sorted(unknown))}')
    if missing:
        reasons.append(f'lack {_summary(sorted(missing))}')
    return f'the weights are nearly in {content}, but {" and ".join(reasons)}'


def _summary(keys: Collection[str], shown: int = 12) -> str:
    """Returns keys without the numbers of their layers, each with how often it occurs."""
    counts = Counter(re.sub(r'(?<=\.)\d+(?=\.)', '*', key, count=1) for key in keys)
    names = []
    for name, number in counts.items():
        names.append(f'{name} ({number})' if number > 1 else name)
    text = ', '.join(names[:shown])
    return f'{text} and {len(names) - shown} more' if len(names) > shown else text
