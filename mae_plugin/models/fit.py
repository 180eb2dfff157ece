"""Whether weights belong to a model, said in a sentence instead of a page of keys."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping

from torch import Tensor, nn

# Resized to the model's grid when they are loaded.
_RESIZED = ('pos_embed', 'decoder_pos_embed')


def check_fit(state_dict: Mapping[str, Tensor], model: nn.Module, source: str = 'the checkpoint') -> None:
    """Refuses weights that would leave part of a model as it was drawn at random.

    Tensors are taken in groups, such as all blocks of the encoder. A group that only one side has is allowed, since
    an encoder goes without a classifier, or without the last norm; a group that both have must agree in every
    tensor and its shape.

    Raises:
        ValueError: naming the groups that differ, with one example each.
    """
    wanted = model.state_dict()
    common = wanted.keys() & state_dict.keys()
    shared_groups = {_group(key) for key in wanted} & {_group(key) for key in state_dict}
    missing = [key for key in wanted if key not in common and _group(key) in shared_groups]
    unexpected = [key for key in state_dict if key not in common and _group(key) in shared_groups]
    reshaped = [
        f'{key} {tuple(state_dict[key].shape)} instead of {tuple(wanted[key].shape)}'
        for key in wanted
        if key in common and key.rpartition('.')[2] not in _RESIZED and state_dict[key].shape != wanted[key].shape
    ]
    faults = []
    if wanted and not common:
        faults.append(f'it holds {_summary(state_dict)}, but the model {_summary(wanted)}')
    if missing:
        faults.append(f'it lacks {_summary(missing)}')
    if unexpected:
        faults.append(f'the model has no {_summary(unexpected)}')
    if reshaped:
        faults.append(f'{len(reshaped)} tensors have another shape, the first {reshaped[0]}')
    if faults:
        raise ValueError(
            f'{source} does not fit {type(model).__name__}: {"; ".join(faults)}; choose the config that it was trained '
            'with, or convert it'
        )


def _group(key: str) -> str:
    """What a tensor is counted with: its list of blocks, or the module that it is a part of."""
    parts = key.split('.')
    index = next((i for i, part in enumerate(parts) if part.isdigit()), len(parts) - 1)
    return '.'.join(parts[: max(index, 1)])


def _summary(keys: Iterable[str], shown: int = 4) -> str:
    groups = Counter(map(_group, keys))
    names = [f'{name} ({number})' for name, number in groups.most_common(shown)]
    more = f' and {len(groups) - shown} more groups' if len(groups) > shown else ''
    return (', '.join(names) or 'no tensors') + more
