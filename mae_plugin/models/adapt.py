"""Brings weights to the grid of patches and the channels of a model, and refuses those of another
architecture.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping

import torch
from mmengine.logging import print_log
from mmpretrain.models import VisionTransformer
from mmpretrain.models.utils import resize_pos_embed
from torch import Tensor, nn

from ..utils._compat.torch import get_metadata

# Resized to the model's grid when they are loaded.
_RESIZED = ('pos_embed', 'decoder_pos_embed')


def check_fit(
    state_dict: Mapping[str, Tensor],
    model: nn.Module,
    source: str = 'the checkpoint',
    exact: bool = False,
) -> None:
    """Refuses weights that would leave part of a model as it was drawn at random.

    Tensors are taken in groups, such as all blocks of the encoder. A group that only one side has
    is allowed, since an encoder goes without a classifier, or without the last norm; a group that
    both have must agree in every tensor and its shape, but for what :func:`fit_encoder` and the
    decoder change when they load.

    Args:
        state_dict: the weights.
        model: what they are for.
        source: what to call them.
        exact: whether another number of channels is refused too, as an optimiser's state cannot be
            changed so.

    Raises:
        ValueError: naming the groups that differ, with one example each, or as
            :func:`check_numbers` does.
    """
    check_numbers(state_dict, model, source)
    wanted = model.state_dict()
    common = wanted.keys() & state_dict.keys()
    shared_groups = {_group(key) for key in wanted} & {_group(key) for key in state_dict}
    missing = [key for key in wanted if key not in common and _group(key) in shared_groups]
    unexpected = [key for key in state_dict if key not in common and _group(key) in shared_groups]
    changed = {} if exact else _changed_channels(state_dict, model)
    reshaped = [
        f'{key} {tuple(state_dict[key].shape)} instead of {tuple(wanted[key].shape)}'
        for key in wanted
        if key in common
        and key.rpartition('.')[2] not in _RESIZED
        and changed.get(key, state_dict[key].shape) != wanted[key].shape
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
            f'{source} does not fit {type(model).__name__}: {"; ".join(faults)}; choose the '
            'config that it was trained '
            'with, or convert it'
        )


def check_complete(
    state_dict: Mapping[str, Tensor], model: nn.Module, source: str = 'the checkpoint'
) -> None:
    """Refuses weights that lack a part of a model that is about to be evaluated.

    Args:
        state_dict: the weights.
        model: what they are for.
        source: what to call them.

    Raises:
        ValueError: naming the tensors that are missing.
    """
    # A probe that is folded into its linear layer has no statistics of BatchNorm, and needs none.
    missing = [key for key, _ in model.named_parameters() if key not in state_dict]
    if missing:
        names = ', '.join(missing[:4]) + (
            f' and {len(missing) - 4} more' if len(missing) > 4 else ''
        )
        raise ValueError(
            f'{source} lacks {names}, so {type(model).__name__} would be evaluated with untrained '
            'weights; name a '
            'checkpoint of its own training, such as one of fine-tuning, or None for the model as '
            'it is built'
        )


def check_numbers(
    state_dict: Mapping[str, Tensor], model: nn.Module, source: str = 'the checkpoint'
) -> None:
    """Refuses weights that torch would leave out or convert without an error, so that a model stays
    random or is wrong.

    Args:
        state_dict: the weights.
        model: what they are for.
        source: what to call them.

    Raises:
        ValueError: if one of them is no tensor, has no content or is not dense, or is of another
            kind of numbers than the model's; another precision is right.
    """
    # Not of the model's state dict, for which sharded weights would be gathered.
    for key, own in (
        *model.named_parameters(remove_duplicate=False),
        *model.named_buffers(remove_duplicate=False),
    ):
        fault = _fault_of(state_dict[key], own) if key in state_dict else None
        if fault:
            raise ValueError(
                f'{source} does not fit {type(model).__name__}: {key} is {fault}; save dense '
                'tensors'
            )


def _fault_of(stored: object, own: Tensor) -> str | None:
    if not isinstance(stored, Tensor):
        return f'a {type(stored).__module__}.{type(stored).__qualname__}, which is not a tensor'
    if stored.is_meta and not own.is_meta:
        return 'on the meta device, without content'
    if stored.is_quantized or stored.layout != torch.strided:
        return 'quantized' if stored.is_quantized else 'sparse'
    if _kind(stored.dtype) != _kind(own.dtype):
        return f'of {stored.dtype}, where the model has {own.dtype}'
    return None


def _kind(dtype: torch.dtype) -> str:
    if dtype.is_floating_point or dtype.is_complex:
        return 'real' if dtype.is_floating_point else 'complex'
    return 'bool' if dtype == torch.bool else 'integer'


def fit_encoder(
    encoder: VisionTransformer,
    state_dict: dict[str, Tensor],
    prefix: str,
    grid: tuple[int, int] | None,
) -> None:
    """Changes an encoder's weights in ``state_dict`` to the channels and the grid of ``encoder``;
    one log line each.

    Args:
        encoder: what the weights are for.
        state_dict: weights, of which those under ``prefix`` are looked at.
        prefix: ends with a dot, or is empty.
        grid: rows and columns of patches that the weights are for; None if nothing says.

    Raises:
        ValueError: as :func:`source_grid` does.
    """
    key, own = f'{prefix}patch_embed.projection.weight', encoder.patch_embed.projection.weight
    stored = state_dict.get(key)
    if stored is not None and stored.shape != own.shape and _only_channels_differ(stored, own):
        state_dict[key] = spread_input(stored, own.shape[1])
        print_log(f'Changed {key} from {stored.shape[1]} to {own.shape[1]} channels.', 'current')
    if encoder.pos_embed is not None and encoder.num_extra_tokens == 1:
        fit_positions(
            state_dict,
            f'{prefix}pos_embed',
            encoder.patch_resolution,
            grid,
            encoder.interpolate_mode,
        )


def fit_positions(
    state_dict: dict[str, Tensor],
    key: str,
    grid: tuple[int, int],
    source: tuple[int, int] | None,
    mode: str = 'bicubic',
) -> None:
    """Resizes the position embedding ``key`` in ``state_dict`` from the ``source`` grid to
    ``grid``, with a log line.

    Raises:
        ValueError: as :func:`source_grid` does.
    """
    if key in state_dict:
        grid, source = tuple(grid), source_grid(state_dict[key].shape[1] - 1, grid, source)
        if source != grid:
            state_dict[key] = resize_pos_embed(state_dict[key], source, grid, mode)
            print_log(f'Resized {key} from {source} to {grid} patches.', 'current')


def source_grid(
    patches: int, grid: tuple[int, int], stored: tuple[int, int] | None = None
) -> tuple[int, int]:
    """The rows and columns of patches that a position embedding is for.

    What is ``stored`` with the weights is right. Without it, as many patches as the model's own
    ``grid`` has are taken for that grid, a square number for a square, and any other for the grid
    of the model's aspect ratio.

    Raises:
        ValueError: if none of them is possible.
    """
    h, w = grid
    if stored is not None and stored[0] * stored[1] == patches:
        return tuple(stored)
    if patches == h * w:
        return h, w
    side = math.isqrt(patches)
    if side * side == patches:
        return side, side
    rows = math.isqrt(patches * h // w)
    if rows and rows * rows * w == patches * h and patches % rows == 0:
        return rows, patches // rows
    raise ValueError(
        f'the weights are for {patches} patches, which are neither a square nor of the shape of '
        f'this model, {h} x {w}, '
        'and do not say in how many rows; resize them with tools/convert_checkpoint.py --src-grid '
        'ROWS COLUMNS '
        '--img-size HEIGHT WIDTH'
    )


def stored_grid(state_dict: Mapping[str, Tensor], prefix: str) -> tuple[int, int] | None:
    """The grid that :func:`remember_grid` noted for the module under ``prefix``, which ends with a
    dot; or None.
    """
    notes = get_metadata(state_dict) or {}
    grid = notes.get(prefix[:-1], {}).get('grid')
    is_grid = (
        isinstance(grid, tuple | list)
        and len(grid) == 2
        and all(type(n) is int and n > 0 for n in grid)
    )
    return tuple(grid) if is_grid else None


def remember_grid(
    module: nn.Module, state_dict: dict[str, Tensor], prefix: str, local_metadata: dict
) -> None:
    """Notes the grid of patches among what torch stores beside a state dict; a hook of
    ``state_dict()``.
    """
    grid = module.patch_resolution if isinstance(module, VisionTransformer) else module.grid_size
    local_metadata['grid'] = tuple(grid)


def spread_input(weight: Tensor, channels: int) -> Tensor:
    """A patch projection (D, C, ph, pw) for images of another number N of channels, (D, N, ph, pw).

    Channel j of the more goes with channel j mod n of the n fewer. The weight of an old channel is
    shared equally by the new ones that go with it, so that an image of N equal channels gives the
    tokens that one of C equal channels gave.
    """
    with_old = _partners(weight.shape[1], channels)
    return torch.einsum('nc,dchw->dnhw', (with_old / with_old.sum(dim=0)).to(weight), weight)


def spread_prediction(tensor: Tensor, before: int, after: int) -> Tensor:
    """Weight or bias of a layer that predicts patches, rows laid out pixel by pixel with channels
    last.

    A new channel is predicted as the mean of the old ones that it goes with (see
    :func:`spread_input`).
    """
    with_old = _partners(before, after)
    mean = (with_old / with_old.sum(dim=1, keepdim=True)).to(tensor)
    return torch.einsum('nc,pc...->pn...', mean, tensor.unflatten(0, (-1, before))).flatten(0, 1)


def _partners(before: int, after: int) -> Tensor:
    """(after, before), 1 where two channels go together."""
    old, new = torch.arange(before), torch.arange(after).unsqueeze(1)
    return ((new - old) % min(before, after) == 0).float()


def _only_channels_differ(stored: Tensor, own: Tensor) -> bool:
    return stored.ndim == 4 and (*stored.shape[:1], *stored.shape[2:]) == (
        *own.shape[:1],
        *own.shape[2:],
    )


def _changed_channels(state_dict: Mapping[str, Tensor], model: nn.Module) -> dict[str, torch.Size]:
    """The shapes that weights will have once encoders and decoder have changed their channels in
    loading.
    """
    shapes = {}
    for name, encoder in model.named_modules():
        if isinstance(encoder, VisionTransformer):
            prefix = f'{name}.' if name else ''
            key, own = (
                f'{prefix}patch_embed.projection.weight',
                encoder.patch_embed.projection.weight,
            )
            if key in state_dict and _only_channels_differ(state_dict[key], own):
                shapes[key] = own.shape
                before, after = state_dict[key].shape[1], own.shape[1]
                for key in {
                    'neck.decoder_pred.weight',
                    'neck.decoder_pred.bias',
                } & state_dict.keys():
                    length, *rest = state_dict[key].shape
                    if length % before == 0:
                        shapes[key] = torch.Size([length // before * after, *rest])
    return shapes


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
