"""Private names of mmpretrain, written for mmpretrain 1.2.0 and onedl-mmpretrain 1.3.6."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from importlib import metadata
from typing import Any

from mmpretrain.apis.model import ModelHub
from mmpretrain.utils import dependency
from torch import nn

# First major version of transformers without functions that mmpretrain's multimodal models import.
_FIRST_BROKEN_TRANSFORMERS = 5


def load_hub() -> None:
    """Fills the model hub with mmpretrain's own index, unless that has been done.

    ``ModelHub._register_mmpretrain_models`` is called by each method of the hub (mmpretrain 1.2.0,
    1.3.6).
    """
    ModelHub._register_mmpretrain_models()


def hub_models() -> dict[str, Any]:
    """Returns the entries of the model hub by their names in lower case.

    ``ModelHub`` keeps them in ``_models_dict`` (mmpretrain 1.2.0, 1.3.6).
    """
    return ModelHub._models_dict


@contextmanager
def overriding_hub_models() -> Iterator[None]:
    """Registers models in the context so that they replace those of the same names.

    ``ModelHub.register_model_index`` refuses names that are taken, so the context begins with an
    empty ``_models_dict`` and merges both at its end (mmpretrain 1.2.0, 1.3.6).
    """
    load_hub()
    existing, ModelHub._models_dict = ModelHub._models_dict, {}
    try:
        yield
    finally:
        ModelHub._models_dict = {**existing, **ModelHub._models_dict}


def ensure_config_attribute(model: nn.Module) -> None:
    """Gives a model that ``get_model`` did not build the attribute that inferencers read.

    ``get_model`` stores the config in ``_config`` (mmpretrain 1.2.0, 1.3.6).
    """
    if not hasattr(model, '_config'):
        model._config = None


def converts_channels(preprocessor: object) -> bool:
    """Returns whether a data preprocessor reverses the order of three channels.

    mmengine's ``ImgDataPreprocessor``, the base of ``SelfSupDataPreprocessor``, keeps it in
    ``_channel_conversion`` (mmengine 0.10.7, 0.10.12); ``ClsDataPreprocessor`` in ``to_rgb``.
    """
    # A ClsDataPreprocessor has the second attribute, and any other one of mmengine's the first.
    converts = getattr(preprocessor, '_channel_conversion', False)
    return bool(converts or getattr(preprocessor, 'to_rgb', False))


def normalizes(preprocessor: object) -> bool:
    """Returns whether a data preprocessor subtracts its ``mean`` and divides by its ``std``.

    It is kept in ``_enable_normalize`` (mmengine 0.10.7, 0.10.12; mmpretrain 1.2.0, 1.3.6).
    """
    return bool(getattr(preprocessor, '_enable_normalize', False))


def switch_off_broken_multimodal() -> None:
    """Makes mmpretrain skip its multimodal models if transformers 5 or newer is installed.

    mmpretrain imports them where pycocotools and transformers are installed. They need functions
    that transformers 5 removed, and importing them fails with ``NoneType takes no arguments``. The
    switch is ``WITH_MULTIMODAL`` of ``mmpretrain.utils.dependency``, which is read when
    ``mmpretrain.models`` is imported (mmpretrain 1.2.0, 1.3.6).
    """
    if not dependency.WITH_MULTIMODAL:
        return
    major = int(metadata.version('transformers').split('.')[0])
    if major >= _FIRST_BROKEN_TRANSFORMERS:
        dependency.WITH_MULTIMODAL = False
