"""Weights of the authors, timm and Hugging Face under mmpretrain's names, for the models that have
these names.

Every other model gets a file as it is: timm's weights reach a timm model under timm's names,
whether this plugin was imported or not.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextvars import ContextVar
from functools import wraps

from mmengine.logging import print_log
from mmengine.model import BaseTTAModel, PretrainedInit, is_model_wrapper
from mmengine.runner import checkpoint as mmengine_checkpoint
from mmpretrain.models import VisionTransformer
from torch import nn

from ..models.adapt import check_numbers
from ..utils._compat.torch import get_metadata
from .architecture import heed_config
from .file_formats import HF_CONFIG, weights_of
from .layouts import detect, to_mmpretrain

# Whether the file that is being read is for an `init_cfg` with a prefix of a model that has
# mmpretrain's names.
_reads_prefix: ContextVar[bool] = ContextVar('reads_prefix', default=False)


def has_mmpretrain_names(model: nn.Module) -> bool:
    """Returns whether a model is mmpretrain's ViT or ours, or has one as its ``backbone``."""
    while is_model_wrapper(model) or isinstance(model, BaseTTAModel):
        model = model.module
    return any(
        isinstance(part, VisionTransformer) for part in (model, getattr(model, 'backbone', None))
    )


def with_mmpretrain_names(checkpoint: Mapping) -> Mapping:
    """Renames weights of a foreign layout to mmpretrain's names, ``backbone.`` first.

    Args:
        checkpoint: weights, bare or under ``state_dict`` or ``model``.

    Returns:
        The renamed weights; the same object where there are none in a foreign layout.

    Raises:
        ValueError: if the config of a Hugging Face folder asks for what mmpretrain's ViT does not
            compute.
    """
    weights = weights_of(checkpoint)
    content = detect(weights) if weights else None
    if content is None or content.layout == 'mmpretrain':
        return checkpoint
    notes = get_metadata(weights) or {}
    heed_config(dict(config=notes.get(HF_CONFIG)))
    print_log(f"The weights are in {content}; they are loaded under mmpretrain's names.", 'current')
    return to_mmpretrain(weights)


def renamed_for(model: nn.Module, checkpoint: Mapping) -> Mapping:
    """Renames weights as :func:`with_mmpretrain_names` for a model that has these names; no prefix
    for a bare ViT.

    Raises:
        ValueError: for such a model, as :func:`~mae_plugin.models.adapt.check_numbers` does.
    """
    if not has_mmpretrain_names(model):
        return checkpoint
    renamed = with_mmpretrain_names(checkpoint)
    if isinstance(model, VisionTransformer) and renamed is not checkpoint:
        renamed = {key.removeprefix('backbone.'): value for key, value in renamed.items()}
    check_numbers(renamed, model)
    return renamed


def renamed_for_prefix(checkpoint: Mapping) -> Mapping:
    """Renames a checkpoint just read from disk, if it is for an ``init_cfg`` with a prefix of a
    model that needs it.
    """
    if not _reads_prefix.get():
        return checkpoint
    renamed = with_mmpretrain_names(checkpoint)
    return checkpoint if renamed is checkpoint else dict(state_dict=renamed)


def register_renaming() -> None:
    """Makes mmengine load foreign weights into models that have mmpretrain's names; calling it
    again changes nothing.

    Every way of mmengine from a file to a model leads through its ``load_state_dict``. For an
    ``init_cfg`` with a prefix that is too late, as mmengine picks the weights under the prefix from
    the file first.
    """
    if getattr(mmengine_checkpoint.load_state_dict, 'renames', False):
        return
    load, initialize = mmengine_checkpoint.load_state_dict, PretrainedInit.__call__

    @wraps(load)
    def load_state_dict(module: nn.Module, state_dict: Mapping, *args, **kwargs) -> None:
        return load(module, renamed_for(module, state_dict), *args, **kwargs)

    @wraps(initialize)
    def initialize_module(self: PretrainedInit, module: nn.Module) -> None:
        token = _reads_prefix.set(self.prefix is not None and has_mmpretrain_names(module))
        try:
            initialize(self, module)
        finally:
            _reads_prefix.reset(token)

    load_state_dict.renames = True
    mmengine_checkpoint.load_state_dict = load_state_dict
    PretrainedInit.__call__ = initialize_module
