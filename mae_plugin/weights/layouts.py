"""The names that four code bases give the same weights, in one table that is read in both
directions.

mmpretrain's layout is the hub: every other one is read into it and written from it. A layout is
recognised only when its keys are exactly those of one kind of content below, so that other models
are never taken for one of these.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Iterator
from functools import cache
from typing import NamedTuple

import torch
from mmengine.logging import print_log
from torch import Tensor

LAYOUTS = ('mmpretrain', 'mae', 'timm', 'hf')

# What each kind of content is made of, and the parts by name: mmpretrain's keys, the authors' and
# timm's, and those of Hugging Face's files. N counts layers, * is weight and bias, braces are
# tensors stacked into one; None = has no place.
KINDS = {
    'pre-training': ('encoder', 'norm', 'decoder'),
    'encoder': ('encoder', 'norm'),
    'encoder without its last norm': ('encoder',),
    'mean-pooled encoder': ('encoder', 'pooled norm'),
    'class-token classifier': ('encoder', 'norm', 'token head'),
    'mean-pooled classifier': ('encoder', 'pooled norm', 'pooled head'),
    'class-token linear probe': ('encoder', 'norm', 'token probe', 'batch norm'),
    'mean-pooled linear probe': ('encoder', 'pooled norm', 'pooled probe', 'batch norm'),
}


def _block(ours: str, mae: str, hf: str) -> list[tuple[str, ...]]:
    names = (
        ('ln1.*', 'norm1.*', 'layernorm_before.*'),
        ('attn.qkv.*', 'attn.qkv.*', 'attention.attention.{query,key,value}.*'),
        ('attn.proj.*', 'attn.proj.*', 'attention.output.dense.*'),
        ('ln2.*', 'norm2.*', 'layernorm_after.*'),
        ('ffn.layers.0.0.*', 'mlp.fc1.*', 'intermediate.dense.*'),
        ('ffn.layers.1.*', 'mlp.fc2.*', 'output.dense.*'),
    )
    return [(f'{ours}.N.{a}', f'{mae}.N.{b}', f'{hf}.N.{c}') for a, b, c in names]


_PARTS = {
    'encoder': [
        ('backbone.cls_token', 'cls_token', 'vit.embeddings.cls_token'),
        ('backbone.pos_embed', 'pos_embed', 'vit.embeddings.position_embeddings'),
        (
            'backbone.patch_embed.projection.*',
            'patch_embed.proj.*',
            'vit.embeddings.patch_embeddings.projection.*',
        ),
        *_block('backbone.layers', 'blocks', 'vit.encoder.layer'),
    ],
    'norm': [('backbone.ln1.*', 'norm.*', 'vit.layernorm.*')],
    'pooled norm': [('backbone.ln2.*', 'fc_norm.*', None)],
    'decoder': [
        ('neck.decoder_embed.*', 'decoder_embed.*', 'decoder.decoder_embed.*'),
        ('neck.mask_token', 'mask_token', 'decoder.mask_token'),
        ('neck.decoder_pos_embed', 'decoder_pos_embed', 'decoder.decoder_pos_embed'),
        *_block('neck.decoder_blocks', 'decoder_blocks', 'decoder.decoder_layers'),
        ('neck.ln1.*', 'decoder_norm.*', 'decoder.decoder_norm.*'),
        ('neck.decoder_pred.*', 'decoder_pred.*', 'decoder.decoder_pred.*'),
    ],
    'token head': [('head.layers.head.*', 'head.*', 'classifier.*')],
    'pooled head': [('head.fc.*', 'head.*', None)],
    'token probe': [('head.layers.head.*', 'head.1.*', None)],
    'pooled probe': [('head.fc.*', 'head.1.*', None)],
    'batch norm': [
        (f'neck.bn.{name}', f'head.0.{name}', None)
        for name in ('running_mean', 'running_var', 'num_batches_tracked')
    ],
}
_COLUMN = dict(mmpretrain=0, mae=1, timm=1, hf=2)
_NOT_IN_TIMM = {'decoder', 'token probe', 'pooled probe', 'batch norm'}

# transformers 5 renamed its modules; its files keep the names of version 4, but for the decoder's
# layers (5.23).
_HF_SPELLINGS = [
    (r'^vit\.layers\.', 'vit.encoder.layer.'),
    (r'^decoder\.decoder_encoder\.layer\.', 'decoder.decoder_layers.'),
    (r'\.attention\.q_proj\.', '.attention.attention.query.'),
    (r'\.attention\.k_proj\.', '.attention.attention.key.'),
    (r'\.attention\.v_proj\.', '.attention.attention.value.'),
    (r'\.attention\.o_proj\.', '.attention.output.dense.'),
    (r'\.mlp\.fc1\.', '.intermediate.dense.'),
    (r'\.mlp\.fc2\.', '.output.dense.'),
]
# What models hold beyond weights of the network itself: the preprocessor's statistics, an untrained
# pooler.
_LEFTOVERS = dict(mmpretrain=r'data_preprocessor\.', hf=r'(vit\.)?pooler\.')
_BATCH_NORM_EPS = 1e-6


class Content(NamedTuple):
    """What a state dict holds: its layout, one of ``LAYOUTS``, and its kind, one of ``KINDS``."""

    layout: str
    kind: str

    def __str__(self) -> str:
        shared = self.layout == 'mae' and _table(self.kind, 'timm') is not None
        return f'layout {"mae or timm" if shared else self.layout}, {self.kind}'


def detect(state_dict: dict[str, Tensor]) -> Content | None:
    """Recognises the layout and kind of a state dict by its keys, all of them; None if they are no
    such weights.

    timm's encoders and classifiers are named as the authors'; for both, the answer is ``mae``.
    """
    for layout in ('mmpretrain', 'mae', 'hf'):
        keys = _in_file_spelling(state_dict, layout).keys()
        for kind in KINDS:
            if keys and keys == _keys(kind, layout, keys):
                return Content(layout, kind)
    return None


def to_mmpretrain(state_dict: dict[str, Tensor]) -> dict[str, Tensor]:
    """Renames weights of any layout to mmpretrain's, ``backbone.`` first, also for an encoder
    alone.

    Raises:
        ValueError: naming what is unknown or missing, if the weights are not exactly of one layout.
    """
    content = detect(state_dict)
    if content is None:
        raise ValueError(_what_is_wrong(state_dict))
    state = _in_file_spelling(state_dict, content.layout)
    if len(state) < len(state_dict):
        print_log(
            f'Left out {_grouped(_leftovers(state_dict, content.layout))}, which the network does '
            'without.',
            'current',
        )
    return {
        ours: torch.cat([state[key] for key in theirs]) if len(theirs) > 1 else state[theirs[0]]
        for ours, theirs in _pairs(content.kind, content.layout, state)
    }


def from_mmpretrain(state_dict: dict[str, Tensor], layout: str) -> dict[str, Tensor]:
    """Renames weights of mmpretrain's layout to another, exactly back from :func:`to_mmpretrain`.

    A layout without a decoder gets the encoder alone; one without the linear probe's BatchNorm gets
    it folded into the classifier. Either is said in a log line.

    Raises:
        ValueError: if the layout cannot hold such weights, or they are not in mmpretrain's.
    """
    if layout not in LAYOUTS:
        raise ValueError(f'there is no layout {layout!r}; there are {", ".join(LAYOUTS)}')
    content = detect(state_dict)
    if content is None or content.layout != 'mmpretrain':
        raise ValueError(
            _what_is_wrong(state_dict)
            if content is None
            else f'the weights are in {content}, not mmpretrain'
        )
    state, kind = _in_file_spelling(state_dict, 'mmpretrain'), content.kind
    if kind == 'pre-training' and layout == 'timm':
        state, kind = encoder_of(state), 'encoder'
        print_log('Left out the decoder, for which timm has no model.', 'current')
    if 'probe' in kind and layout in ('timm', 'hf'):
        state, kind = _fold_batch_norm(state), kind.replace('linear probe', 'classifier')
        print_log(
            f"Folded the linear probe's BatchNorm into the classifier, as {layout} has none.",
            'current',
        )
    if _table(kind, layout) is None:
        raise ValueError(
            f'layout {layout} has no place for these weights ({kind}): its models have a '
            'LayerNorm after the last '
            'layer and classify the class token; mmpretrain, mae and timm hold them'
        )
    pairs = _pairs(kind, layout, state, ours=True)
    result: dict[str, Tensor] = {}
    for ours, theirs in pairs:
        parts = state[ours].chunk(len(theirs)) if len(theirs) > 1 else [state[ours]]
        result.update(zip(theirs, parts, strict=True))
    # Hugging Face's models without a head have no prefix.
    return (
        {key.removeprefix('vit.'): t for key, t in result.items()}
        if (layout, kind) == ('hf', 'encoder')
        else result
    )


def encoder_of(state_dict: dict[str, Tensor]) -> dict[str, Tensor]:
    """The encoder among weights of mmpretrain's layout, still named ``backbone.*``."""
    return {key: tensor for key, tensor in state_dict.items() if key.startswith('backbone.')}


@cache
def _table(kind: str, layout: str) -> list[tuple[str, list[str]]] | None:
    """Rows (mmpretrain's name, names of the layout) with N for the layer; None if the layout has no
    such kind.
    """
    if (layout == 'timm' and _NOT_IN_TIMM & {*KINDS[kind]}) or (
        layout == 'hf' and 'norm' not in KINDS[kind]
    ):
        return None
    rows = []
    for part in KINDS[kind]:
        for row in _PARTS[part]:
            ours, theirs = row[0], row[_COLUMN[layout]]
            if theirs is None:
                return None
            head, _, rest = theirs.partition('{')
            stacked, _, tail = rest.partition('}')
            names = [f'{head}{name}{tail}' for name in stacked.split(',')]
            for leaf in ('weight', 'bias') if ours.endswith('*') else ('',):
                rows.append((ours.replace('*', leaf), [name.replace('*', leaf) for name in names]))
    return rows


def _pairs(
    kind: str, layout: str, present: Collection[str], ours: bool = False
) -> Iterator[tuple[str, list[str]]]:
    """Yields (mmpretrain's key, keys of the layout) for as many layers as ``present``, keys of
    either, has.
    """
    layers: dict[str, set[str]] = {}
    for key in present:
        if match := re.match(r'(.+?)\.(\d+)\.', key):
            layers.setdefault(match[1], set()).add(match[2])
    for our_name, their_names in _table(kind, layout) or ():
        stem, counts, _ = (our_name if ours else their_names[0]).partition('.N.')
        for n in range(len(layers.get(stem, ())) or 1 if counts else 1):
            yield (
                our_name.replace('.N.', f'.{n}.'),
                [their.replace('.N.', f'.{n}.') for their in their_names],
            )


def _keys(kind: str, layout: str, present: Collection[str]) -> set[str]:
    return {key for _, theirs in _pairs(kind, layout, present) for key in theirs}


def _leftovers(keys: Collection[str], layout: str) -> list[str]:
    return [key for key in keys if layout in _LEFTOVERS and re.match(_LEFTOVERS[layout], key)]


def _in_file_spelling(state_dict: dict[str, Tensor], layout: str) -> dict[str, Tensor]:
    """Brings the several ways in which one layout is written to that of the table."""
    leftovers = set(_leftovers(state_dict, layout))
    state = {key: tensor for key, tensor in state_dict.items() if key not in leftovers}
    # Models of mmpretrain and Hugging Face that are an encoder alone have no prefix.
    prefix = dict(mmpretrain='backbone.', hf='vit.').get(layout, '')
    if not any(key.startswith(prefix) for key in state):
        state = {f'{prefix}{key}': tensor for key, tensor in state.items()}
    if layout == 'hf':
        respelled = {_in_hf_file_spelling(key): tensor for key, tensor in state.items()}
        # Two spellings of one name are two tensors, of which none may be lost.
        state = respelled if len(respelled) == len(state) else state
    return state


def _in_hf_file_spelling(key: str) -> str:
    for pattern, replacement in _HF_SPELLINGS:
        key = re.sub(pattern, replacement, key)
    return key


def _what_is_wrong(state_dict: dict[str, Tensor]) -> str:
    """Says which layout is nearest, and what keeps the weights from being of it."""
    nearest = []
    for layout in ('mmpretrain', 'mae', 'hf'):
        keys = set(_in_file_spelling(state_dict, layout))
        for kind in KINDS:
            wanted = _keys(kind, layout, keys)
            nearest.append(
                (
                    len(wanted & keys) - len(wanted - keys),
                    layout,
                    kind,
                    keys - wanted,
                    wanted - keys,
                )
            )
    score, layout, kind, unknown, missing = max(nearest, key=lambda entry: entry[0])
    if score <= 0:
        return f'the weights are in none of the layouts {", ".join(LAYOUTS)}: they hold {_grouped(state_dict)}'
    reasons = [
        f'{what} {_grouped(sorted(keys))}'
        for what, keys in (('hold', unknown), ('lack', missing))
        if keys
    ]
    return f'the weights are nearly in {Content(layout, kind)}, but {" and ".join(reasons)}'


def _grouped(keys: Collection[str]) -> str:
    """Keys with the number of their layer left out, and how many there are of each; the first
    twelve.
    """
    counts = Counter(re.sub(r'(?<=\.)\d+(?=\.)', '*', key, count=1) for key in keys)
    said = [f'{name} ({number})' if number > 1 else name for name, number in counts.items()]
    return ', '.join(said[:12]) + (f' and {len(said) - 12} more' if len(said) > 12 else '')


def _fold_batch_norm(state_dict: dict[str, Tensor]) -> dict[str, Tensor]:
    """W (x - mean) / sqrt(var + eps) + b as one linear layer."""
    state = {key: tensor for key, tensor in state_dict.items() if not key.startswith('neck.bn.')}
    (weight,) = (key for key in state if re.fullmatch(r'head\..*weight', key))
    bias = weight.replace('weight', 'bias')
    mean, var = (state_dict[f'neck.bn.running_{name}'].double() for name in ('mean', 'var'))
    scaled = state[weight].double() / (var + _BATCH_NORM_EPS).sqrt()
    folded = {weight: scaled, bias: state[bias].double() - scaled @ mean}
    return {**state, **{key: tensor.to(state[key].dtype) for key, tensor in folded.items()}}
