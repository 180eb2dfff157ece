"""Loads weights of the authors, timm and Hugging Face into models that have mmpretrain's names.

Every other model gets a file unchanged: timm's weights reach a timm model under timm's names,
whether this plugin is imported or not.
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

from ..models import MAE
from ..models.check_weights import check_tensors, is_checked
from ..utils._compat.torch import get_metadata
from .hugging_face import HF_CONFIG, check_config
from .layouts import detect
from .renaming import to_mmpretrain
from .state_dicts import weights_of

# Whether the file that is being read is for an ``init_cfg`` with a prefix, of a model that has
# mmpretrain's names.
_reads_prefix: ContextVar[bool] = ContextVar('reads_prefix', default=False)


def unwrap(model: nn.Module) -> nn.Module:
    """Returns the model inside wrappers for parallel training and test-time augmentation."""
    while is_model_wrapper(model) or isinstance(model, BaseTTAModel):
        model = model.module
    return model


def has_mmpretrain_names(model: nn.Module) -> bool:
    """Returns whether a model is mmpretrain's ViT or ours, or has one as its ``backbone``."""
    model = unwrap(model)
    return isinstance(model, VisionTransformer) or isinstance(
        getattr(model, 'backbone', None), VisionTransformer
    )


def with_mmpretrain_names(checkpoint: Mapping) -> Mapping:
    """Renames weights of a foreign layout to mmpretrain's names, ``backbone.`` first.

    Args:
        checkpoint: weights, bare or under ``state_dict`` or ``model``.

    Returns:
        The renamed weights; the same object if it holds no weights of a foreign layout.

    Raises:
        ValueError: if the config of a Hugging Face folder describes a model that mmpretrain's ViT
            does not compute.
    """
    weights = weights_of(checkpoint)
    content = detect(weights) if weights else None
    if content is None or content.layout == 'mmpretrain':
        return checkpoint
    notes = get_metadata(weights) or {}
    check_config(notes.get(HF_CONFIG))
    print_log(f"The weights are in {content}; they are loaded under mmpretrain's names.", 'current')
    return to_mmpretrain(weights)


def renamed_for(model: nn.Module, checkpoint: Mapping) -> Mapping:
    """Renames weights for a model as :func:`with_mmpretrain_names`, if it has these names.

    The names for a bare ViT have no prefix.
    """
    if not has_mmpretrain_names(model):
        return checkpoint
    renamed = with_mmpretrain_names(checkpoint)
    if isinstance(model, VisionTransformer) and renamed is not checkpoint:
        renamed = {key.removeprefix('backbone.'): value for key, value in renamed.items()}
    return renamed


def renamed_for_prefix(checkpoint: dict) -> dict:
    """Renames a checkpoint just read, if it is for an ``init_cfg`` with a prefix that needs it."""
    if not _reads_prefix.get():
        return checkpoint
    renamed = with_mmpretrain_names(checkpoint)
    return checkpoint if renamed is checkpoint else dict(state_dict=renamed)


def register_foreign_layouts() -> None:
    """Makes mmengine load foreign weights into models that have mmpretrain's names.

    All of mmengine's ways from a file to a model go through its function ``load_state_dict``, which
    is replaced. For an ``init_cfg`` with a prefix that is too late, because mmengine first selects
    the weights under the prefix; the names are then changed when the file is read. A second call
    changes nothing.
    """
    if getattr(mmengine_checkpoint.load_state_dict, 'renames', False):
        return
    load, initialize = mmengine_checkpoint.load_state_dict, PretrainedInit.__call__

    @wraps(load)
    def load_state_dict(module: nn.Module, state_dict: Mapping, *args, **kwargs) -> None:
        state_dict = renamed_for(module, state_dict)
        if _needs_check(module, state_dict):
            check_tensors(state_dict, module)
        return load(module, state_dict, *args, **kwargs)

    @wraps(initialize)
    def initialize_module(self: PretrainedInit, module: nn.Module) -> None:
        token = _reads_prefix.set(self.prefix is not None and has_mmpretrain_names(module))
        try:
            initialize(self, module)
        finally:
            _reads_prefix.reset(token)

    # setattr, because a function has no declared attributes.
    setattr(load_state_dict, 'renames', True)  # noqa: B010
    mmengine_checkpoint.load_state_dict = load_state_dict
    PretrainedInit.__call__ = initialize_module


def _needs_check(model: nn.Module, state_dict: Mapping) -> bool:
    """Returns whether weights for a model with mmpretrain's names have not been checked.

    Weights are checked once per load: by :class:`MAE` itself, by the Runner's hook before the load,
    or here. Weights of other models are left to mmengine.
    """
    model = unwrap(model)
    if isinstance(model, MAE) or not has_mmpretrain_names(model):
        return False
    notes = get_metadata(state_dict) or {}
    return not is_checked(notes.get('', {}), model)
