"""Adapts a state dict to a model for other images: another grid of patches, other channels.

:func:`adapt` is a pure function of a state dict, the grid that it is for, and the sizes that a
model needs. Load hooks, the Runner's hook and the converter all call it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import NamedTuple

import torch
from mmengine.logging import print_log
from mmpretrain.models import VisionTransformer
from mmpretrain.models.utils import resize_pos_embed
from torch import Tensor, nn

from .channels import spread_input, spread_prediction
from .grids import Grid, noted_grid, source_grid, stored_grid


class Keys(NamedTuple):
    """Names, within a module, of the tensors whose shapes depend on the size of the images.

    Attributes:
        positions: the position embedding, (1, 1 + L, D), the cls token's first.
        projection: the weight that projects patches to tokens, (D, C, ph, pw).
        prediction: weight and bias of a layer that predicts patches, (ph * pw * C, ...).
    """

    positions: str
    projection: str | None = None
    prediction: tuple[str, ...] = ()


ENCODER_KEYS = Keys(positions='pos_embed', projection='patch_embed.projection.weight')
"""Names in mmpretrain's ``VisionTransformer``, and so in ``MAEViT``."""


@dataclass(frozen=True)
class Wanted:
    """The sizes that one part of a model, such as its encoder, needs of its weights.

    Attributes:
        prefix: start of the part's names in the state dict; ends with a dot, or is empty.
        keys: the names after the prefix.
        patch_size: height and width of a patch in pixels.
        grid: rows and columns of patches; None leaves the position embedding as it is.
        channels: channels of the images; None leaves projection and prediction as they are.
        mode: interpolation of the position embedding.
    """

    prefix: str
    keys: Keys
    patch_size: tuple[int, int]
    grid: Grid | None = None
    channels: int | None = None
    mode: str = 'bicubic'


class Change(NamedTuple):
    """One tensor that is adapted.

    Attributes:
        key: its name in the state dict.
        unit: ``'patches'`` or ``'channels'``.
        before: the grid (h, w) or the number of channels that the tensor is for.
        after: the same after the change.
        shape: the tensor's shape after the change.
        apply: computes the new tensor from the old one.
    """

    key: str
    unit: str
    before: Grid | int
    after: Grid | int
    shape: tuple[int, ...]
    apply: Callable[[Tensor], Tensor]

    def __str__(self) -> str:
        verb = 'Resized' if self.unit == 'patches' else 'Changed'
        return f'{verb} {self.key} from {self.before} to {self.after} {self.unit}.'


@dataclass(frozen=True)
class Report:
    """The changes of a state dict, and the remaining differences from the model.

    Attributes:
        changes: one entry for each tensor that is adapted.
        missing: names that the model has and the state dict lacks.
        unexpected: names that the state dict has and the model lacks.
        reshaped: by name, the stored shape and the model's, where the result still differs.
    """

    changes: list[Change] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)
    unexpected: list[str] = field(default_factory=list)
    reshaped: dict[str, tuple[tuple[int, ...], tuple[int, ...]]] = field(default_factory=dict)

    def log(self) -> None:
        """Writes a log line for each change."""
        for change in self.changes:
            print_log(str(change), 'current')


def adapt(
    state_dict: Mapping[str, Tensor],
    wanted: Iterable[Wanted],
    grid: Grid | None = None,
    shapes: Mapping[str, torch.Size] | None = None,
) -> tuple[dict[str, Tensor], Report]:
    """Returns weights for a model of another image size or number of channels, and a report.

    Args:
        state_dict: the weights; neither the dict nor its tensors are modified.
        wanted: the sizes that each part of the model needs.
        grid: rows and columns of patches that the weights are for. If None, those noted beside the
            state dict, or else as :func:`~.grids.source_grid` infers them.
        shapes: the shapes of all tensors of the model, for the report; None for changes alone.

    Raises:
        ValueError: if the grid of the weights can neither be known nor inferred.
    """
    report = compare(state_dict, wanted, grid, shapes)
    adapted = dict(state_dict)
    for change in report.changes:
        adapted[change.key] = change.apply(state_dict[change.key])
    return adapted, report


def compare(
    state_dict: Mapping[str, Tensor],
    wanted: Iterable[Wanted],
    grid: Grid | None = None,
    shapes: Mapping[str, torch.Size] | None = None,
) -> Report:
    """Returns the report of :func:`adapt`, which needs the shapes of the weights alone.

    Arguments and errors as for :func:`adapt`.
    """
    changes = []
    for part in wanted:
        # Encoder and decoder are noted separately, so each may have been resized alone.
        known = grid or stored_grid(state_dict, part.prefix)
        changes += _grid_changes(state_dict, part, known)
        changes += _channel_changes(state_dict, part)
    if shapes is None:
        return Report(changes)
    adapted = {change.key: tuple(change.shape) for change in changes}
    reshaped = {}
    for key in shapes.keys() & state_dict.keys():
        stored, own = tuple(state_dict[key].shape), tuple(shapes[key])
        if adapted.get(key, stored) != own:
            reshaped[key] = stored, own
    return Report(
        changes,
        missing=[key for key in shapes if key not in state_dict],
        unexpected=[key for key in state_dict if key not in shapes],
        # In the model's order, so that an error names the first tensor.
        reshaped={key: reshaped[key] for key in shapes if key in reshaped},
    )


def wanted_by_encoder(encoder: VisionTransformer, prefix: str = '') -> Wanted:
    """Returns the sizes that an encoder needs of its weights."""
    projection = encoder.patch_embed.projection.weight  # (D, C, ph, pw)
    # Encoders without position embedding, or with a distillation token, are left to mmpretrain.
    resizes = encoder.pos_embed is not None and encoder.num_extra_tokens == 1
    return Wanted(
        prefix,
        ENCODER_KEYS,
        patch_size=tuple(projection.shape[2:]),
        grid=tuple(encoder.patch_resolution) if resizes else None,
        channels=projection.shape[1],
        mode=encoder.interpolate_mode,
    )


def wanted_by(model: nn.Module) -> list[Wanted]:
    """Returns the sizes that the parts of a model need whose load hooks adapt their weights."""
    parts = []
    for name, module in model.named_modules():
        prefix = f'{name}.' if name else ''
        if isinstance(module, VisionTransformer):
            parts.append(wanted_by_encoder(module, prefix))
        elif hasattr(module, 'wanted_weights'):
            parts.append(module.wanted_weights(prefix))
    return parts


def adapt_on_load(
    state_dict: dict[str, Tensor], wanted: Wanted, local_metadata: dict, grid: Grid | None = None
) -> None:
    """Adapts a state dict in place, with log lines; for hooks of ``load_state_dict``.

    Args:
        state_dict: the weights.
        wanted: the sizes that the module needs.
        local_metadata: the notes of the module, as torch passes them to the hook.
        grid: rows and columns of patches that the weights are for, if the notes lack them.
    """
    adapted, report = adapt(state_dict, [wanted], noted_grid(local_metadata) or grid)
    state_dict.update(adapted)
    report.log()


def _grid_changes(
    state_dict: Mapping[str, Tensor], part: Wanted, stored: Grid | None
) -> list[Change]:
    """Returns the change of the position embedding to the grid that is wanted, if there is one."""
    key = part.prefix + part.keys.positions
    tensor = state_dict.get(key)
    if part.grid is None or tensor is None or tensor.ndim != 3:
        return []
    before = source_grid(tensor.shape[1] - 1, stored, part.grid)
    if before == part.grid:
        return []
    # The cls token, the first one, has no position and is kept.
    resize = partial(resize_pos_embed, src_shape=before, dst_shape=part.grid, mode=part.mode)
    shape = (len(tensor), 1 + part.grid[0] * part.grid[1], tensor.shape[2])
    return [Change(key, 'patches', before, part.grid, shape, resize)]


def _channel_changes(state_dict: Mapping[str, Tensor], part: Wanted) -> list[Change]:
    """Returns the changes of projection and prediction to the channels that are wanted."""
    changes: list[Change] = []
    after = part.channels
    if after is None:
        return changes
    if part.keys.projection is not None:
        key = part.prefix + part.keys.projection
        tensor = state_dict.get(key)  # (D, C, ph, pw)
        if tensor is not None and tuple(tensor.shape[2:]) == part.patch_size:
            before = tensor.shape[1]
            shape = (len(tensor), after, *part.patch_size)
            spread = partial(spread_input, channels=after)
            changes.append(Change(key, 'channels', before, after, shape, spread))
    # The decoder predicts the pixels of a patch with the channels innermost.
    pixels = math.prod(part.patch_size)
    for name in part.keys.prediction:
        key = part.prefix + name
        tensor = state_dict.get(key)  # (ph * pw * C, ...)
        if tensor is not None and tensor.ndim and len(tensor) % pixels == 0:
            before = len(tensor) // pixels
            shape = (pixels * after, *tensor.shape[1:])
            spread = partial(spread_prediction, before=before, after=after)
            changes.append(Change(key, 'channels', before, after, shape, spread))
    return [change for change in changes if change.before != after]
