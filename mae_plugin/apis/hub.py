"""Extends mmpretrain's ``get_model`` and ``inference_model`` to configs, work dirs and checkpoints.

``inference_model`` of a pre-training model reconstructs.
"""

from __future__ import annotations

import difflib
import functools
import logging
import os
import sys
from collections.abc import Callable
from pathlib import Path

from mmengine.config import Config
from mmengine.logging import print_log
from mmengine.model import BaseModel
from mmpretrain.apis import model as mmpretrain_apis
from mmpretrain.apis.model import ModelHub
from mmpretrain.models import ImageClassifier
from mmpretrain.registry import MODELS
from modelindex.models.Model import Model

from ..analysis.inferencer import path_as_text
from ..analysis.reconstruction_inferencer import reconstruct_image
from ..engine.config.files import WEIGHT_ENDINGS, our_configs, read_config
from ..engine.resume.work_dir import CheckpointPaths
from ..models import MAE
from ..utils._compat.mmpretrain import hub_models, load_hub
from ..weights.loading import read_checkpoint
from ..weights.stored_config import stored_config


def model_at(path: str | Path) -> Model:
    """Returns a hub entry of mmpretrain for a local path.

    Args:
        path: a config; the work dir of a run, for its config and its newest checkpoint; or the
            checkpoint of a run, which contains its config.

    Raises:
        FileNotFoundError: if the path does not exist, or is a work dir without a checkpoint.
        ValueError: if the config cannot be read, or the checkpoint contains none.
    """
    place = Path(path).expanduser()
    if place.is_dir():
        config, weights = _of_run(place)
    elif not place.is_file():
        raise FileNotFoundError(f'there is no config, work dir or checkpoint {path}')
    elif place.suffix in WEIGHT_ENDINGS:
        config, weights = stored_config(read_checkpoint(str(place), 'cpu'), str(path)), str(place)
    else:
        config = read_config(place)
        weights = config.get('load_from')
    return _entry(str(path), config, weights)


def _of_run(folder: Path) -> tuple[Config, str]:
    """Returns the config and the newest readable checkpoint in a work dir."""
    for weights in CheckpointPaths.of(folder).candidates():
        try:
            checkpoint = read_checkpoint(str(weights), 'cpu')
        except (ValueError, OSError) as error:
            print_log(f'{error}, so an older checkpoint is looked for.', 'current', logging.WARNING)
            continue
        # Every start of a run writes its config into the work dir.
        configs = sorted(folder.glob('*.py'), key=lambda file: file.stat().st_mtime_ns)
        if configs:
            config = read_config(configs[-1])
        else:
            config = stored_config(checkpoint, str(weights))
        return config, str(weights)
    raise FileNotFoundError(
        f'the folder {folder} holds no checkpoint of a run; name a config or a checkpoint'
    )


def _entry(name: str, config: Config, weights: str | None) -> Model:
    """Returns a hub entry; raises ValueError if the config has no model."""
    if not isinstance(config.get('model'), dict):
        raise ValueError(f'{name} configures no model')
    # inference_model selects the inferencer by the task.
    classifies = issubclass(_kind(config), ImageClassifier)
    task = dict(Task='Image Classification', Dataset='', Metrics={})
    return Model(name=name, config=config, weights=weights, results=[task] if classifies else None)


def _kind(config: Config) -> type:
    """Returns the class of the model in a config; ``object`` if it is in no registry."""
    kind = config.model.get('type')
    kind = MODELS.module_dict.get(kind) if isinstance(kind, str) else kind
    return kind if isinstance(kind, type) else object


def accept_paths() -> None:
    """Extends ``ModelHub.get``, which accepts only names; all names keep their meaning."""
    by_name = ModelHub.get.__func__
    if getattr(by_name, 'accepts_paths', False):
        return

    def get(cls: type[ModelHub], model_name: str | os.PathLike | Config) -> Model:
        """Returns the entry of a name, or of the path of a config, a work dir or a checkpoint."""
        if isinstance(model_name, Config):
            config_name = str(model_name.filename or 'the config')
            return _entry(config_name, model_name, model_name.get('load_from'))
        name = os.fspath(model_name)
        load_hub()
        if cls.has(name.lower()):
            return by_name(cls, name)
        is_path = '/' in name or name.endswith(('.py', *WEIGHT_ENDINGS))
        if is_path or os.path.exists(os.path.expanduser(name)):
            return model_at(name)
        if (config := our_configs().get(name)) is not None:
            return model_at(config)
        near = difflib.get_close_matches(name, [*our_configs(), *hub_models()], n=1)
        hint = f'; did you mean {near[0]}?' if near else ''
        raise ValueError(
            f'there is no model, config, work dir or checkpoint {name}{hint}; '
            'mmpretrain.list_models() has all names'
        )

    get.accepts_paths = True  # type: ignore[attr-defined]  # marks the replacement
    ModelHub.get = classmethod(get)
    _extend_functions(mmpretrain_apis.get_model, mmpretrain_apis.inference_model)


def _extend_functions(by_text: Callable, by_task: Callable) -> None:
    """Replaces mmpretrain's ``get_model`` and ``inference_model`` by versions that accept paths.

    Args:
        by_text: mmpretrain's ``get_model``, which accepts paths only as text.
        by_task: mmpretrain's ``inference_model``, which has no inferencer for pre-training.
    """

    @functools.wraps(by_text)
    def get_model(
        model: str | os.PathLike | Config,
        pretrained: str | os.PathLike | bool = False,
        *args,
        **kwargs,
    ):
        return by_text(path_as_text(model), path_as_text(pretrained), *args, **kwargs)

    @functools.wraps(by_task)
    def inference_model(model: BaseModel | str | os.PathLike | Config, *args, **kwargs):
        model = path_as_text(model)
        if 'pretrained' in kwargs:
            kwargs['pretrained'] = path_as_text(kwargs['pretrained'])
        is_mae = isinstance(model, MAE) if isinstance(model, BaseModel) else _is_mae(model)
        return (reconstruct_image if is_mae else by_task)(model, *args, **kwargs)

    # Other modules of mmpretrain have imported the functions under the same names.
    replacements = ((by_text, get_model), (by_task, inference_model))
    for name, module in list(sys.modules.items()):
        if name.split('.')[0] != 'mmpretrain':
            continue
        for old, new in replacements:
            if vars(module).get(old.__name__) is old:
                setattr(module, old.__name__, new)


def _is_mae(model: str | Config) -> bool:
    """Returns whether a config, or the one at a path, is of a pre-training model."""
    config = ModelHub.get(model).config
    return issubclass(_kind(config), MAE)
