"""The names that four code bases give the same weights: one table, used in both directions.

mmpretrain's layout is the hub: every other layout is renamed to it and from it. A layout is
recognized only if its keys are exactly those of one kind of content below, so that the weights of
another model are never mistaken for one of these.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator
from functools import cache
from typing import Any, NamedTuple

from torch import Tensor

LAYOUTS = ('mmpretrain', 'mae', 'timm', 'hf')
# timm's names are the authors', and are detected as these.
DETECTED = tuple(layout for layout in LAYOUTS if layout != 'timm')

# The parts of each kind of content.
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
    """Returns the rows of the table for the blocks of a transformer."""
    names = (
        ('ln1.*', 'norm1.*', 'layernorm_before.*'),
        ('attn.qkv.*', 'attn.qkv.*', 'attention.attention.{query,key,value}.*'),
        ('attn.proj.*', 'attn.proj.*', 'attention.output.dense.*'),
        ('ln2.*', 'norm2.*', 'layernorm_after.*'),
        ('ffn.layers.0.0.*', 'mlp.fc1.*', 'intermediate.dense.*'),
        ('ffn.layers.1.*', 'mlp.fc2.*', 'output.dense.*'),
    )
    return [(f'{ours}.N.{a}', f'{mae}.N.{b}', f'{hf}.N.{c}') for a, b, c in names]


# The keys of each part: mmpretrain's, the authors' and timm's, and those in Hugging Face's files.
# N counts layers, * is weight and bias, braces are tensors stacked into one; None has no place.
_PARTS: dict[str, list[tuple[Any, ...]]] = {
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

# transformers 5 renamed its modules. Its files keep the names of version 4, except for the
# decoder's layers (5.23).
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
# Prefixes of all keys, which models that are an encoder alone go without.
_PREFIXES = dict(mmpretrain='backbone.', hf='vit.')
# Tensors beyond the weights of the network: statistics of the preprocessor, an untrained pooler.
_EXTRAS = dict(mmpretrain=r'data_preprocessor\.', hf=r'(vit\.)?pooler\.')


class Content(NamedTuple):
    """The content of a state dict: its layout, one of ``LAYOUTS``, and its kind, of ``KINDS``."""

    layout: str
    kind: str

    def __str__(self) -> str:
        is_shared = self.layout == 'mae' and has_place('timm', self.kind)
        return f'layout {"mae or timm" if is_shared else self.layout}, {self.kind}'


def detect(state_dict: dict[str, Tensor]) -> Content | None:
    """Recognizes the layout and kind of a state dict by all of its keys.

    timm names encoders and classifiers as the authors do; the result for both is ``mae``.

    Returns:
        The content, or None if the keys are not exactly those of one layout and kind.
    """
    for layout in DETECTED:
        keys = in_table_spelling(state_dict, layout).keys()
        for kind in KINDS:
            if keys and keys == keys_of(kind, layout, keys):
                return Content(layout, kind)
    return None


def has_place(layout: str, kind: str) -> bool:
    """Returns whether a layout has keys for a kind of content."""
    return _rows(kind, layout) is not None


def key_pairs(
    kind: str, layout: str, present: Collection[str], from_hub: bool = False
) -> Iterator[tuple[str, list[str]]]:
    """Yields the keys of mmpretrain, each with the keys of a layout that are stacked into it.

    Args:
        kind: one of ``KINDS``.
        layout: one of ``LAYOUTS``.
        present: keys of the layout, which show the number of layers.
        from_hub: whether ``present`` are keys of mmpretrain instead.
    """
    layers: dict[str, set[str]] = {}
    for key in present:
        if match := re.match(r'(.+?)\.(\d+)\.', key):
            layers.setdefault(match[1], set()).add(match[2])
    for our_name, their_names in _rows(kind, layout) or ():
        stem, is_block, _ = (our_name if from_hub else their_names[0]).partition('.N.')
        # At least one layer, so that a state dict without any lacks its keys.
        number = max(len(layers.get(stem, ())), 1) if is_block else 1
        for n in range(number):
            theirs = [name.replace('.N.', f'.{n}.') for name in their_names]
            yield our_name.replace('.N.', f'.{n}.'), theirs


def keys_of(kind: str, layout: str, present: Collection[str]) -> set[str]:
    """Returns all keys of a kind in a layout, for as many layers as ``present`` keys have."""
    return {key for _, theirs in key_pairs(kind, layout, present) for key in theirs}


def extras_of(keys: Collection[str], layout: str) -> list[str]:
    """Returns the keys that the network of a layout works without."""
    return [key for key in keys if layout in _EXTRAS and re.match(_EXTRAS[layout], key)]


def in_table_spelling(state_dict: dict[str, Tensor], layout: str) -> dict[str, Tensor]:
    """Returns weights without extras, with the several spellings of a layout as in the table."""
    extras = set(extras_of(state_dict, layout))
    state = {key: tensor for key, tensor in state_dict.items() if key not in extras}
    prefix = _PREFIXES.get(layout, '')
    if not any(key.startswith(prefix) for key in state):
        state = {f'{prefix}{key}': tensor for key, tensor in state.items()}
    if layout == 'hf':
        respelled = {_in_hf_spelling(key): tensor for key, tensor in state.items()}
        # Two spellings of one name are two tensors, and neither may be lost.
        if len(respelled) == len(state):
            state = respelled
    return state


def _in_hf_spelling(key: str) -> str:
    """Returns a key of transformers 4 or 5 as in the table."""
    for pattern, replacement in _HF_SPELLINGS:
        key = re.sub(pattern, replacement, key)
    return key


@cache
def _rows(kind: str, layout: str) -> list[tuple[str, list[str]]] | None:
    """Returns rows (mmpretrain's name, the layout's names), with N for the number of the layer.

    The result is None if the layout has no such kind.
    """
    parts = KINDS[kind]
    if layout == 'timm' and _NOT_IN_TIMM & {*parts}:
        return None
    # Hugging Face's models always have a LayerNorm after the last layer.
    if layout == 'hf' and 'norm' not in parts:
        return None
    rows = []
    for part in parts:
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
