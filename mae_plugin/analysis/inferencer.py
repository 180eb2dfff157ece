"""ImageInferencer, the base of the inferencers for features and reconstructions."""

from __future__ import annotations

import os
from collections.abc import Iterable
from math import ceil
from typing import Any

import torch
from mmengine.config import Config
from mmengine.model import BaseModel
from mmpretrain.apis.base import BaseInferencer
from mmpretrain.utils import progress as mmpretrain_progress
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

from ..utils._compat.mmpretrain import ensure_config_attribute
from ..weights.check_finite import check_finite_model
from .images import ImageLike, ImageReader, as_list


def path_as_text(value: object) -> Any:
    """Returns a ``pathlib.Path`` as text, as mmpretrain requires, and other values unchanged."""
    return os.fspath(value) if isinstance(value, os.PathLike) else value


def check_device(device: str | torch.device) -> None:
    """Raises ValueError if this machine does not have the device.

    torch raises later, and with another error in a data loader's process.
    """
    try:
        kind = torch.device(device)
    except (RuntimeError, TypeError):
        raise ValueError(
            f'device {device} is unknown; there is cpu, cuda, or cuda:0 for the first GPU'
        ) from None
    if kind.type == 'cuda':
        count = torch.cuda.device_count() if torch.cuda.is_available() else 0
        if count <= (kind.index or 0):
            available = f'{count} of them' if count else 'no GPU that torch can use'
            raise ValueError(f'device {device} is a GPU, but this machine has {available}; use cpu')
    elif kind.type != 'cpu':
        try:
            torch.empty(0, device=kind)
        except (RuntimeError, AssertionError, NotImplementedError, ModuleNotFoundError):
            raise ValueError(f'device {device} is not on this machine; use cpu') from None


class ImageInferencer(BaseInferencer):
    """mmpretrain's inferencer for any model, including one that was built without a config.

    Args:
        model: name of a model, path of a config, work dir of a run, checkpoint of a run, a config,
            or a model.
        pretrained: path or URL of weights; True takes those published under the model's name, or
            the newest of the run.
        device: device of the computation; None leaves the model on its device.
        channel_order: channel order of arrays, see :class:`ImageReader`.
        **kwargs: changes to the config of the model.

    Raises:
        ValueError: if this machine does not have the device, or weights are not finite.
    """

    def __init__(
        self,
        model: BaseModel | str | os.PathLike | Config,
        pretrained: bool | str | os.PathLike = True,
        device: str | torch.device | None = None,
        channel_order: str = 'bgr',
        **kwargs,
    ) -> None:
        self.channel_order = channel_order
        model, pretrained = path_as_text(model), path_as_text(pretrained)
        if device is not None:
            check_device(device)
        if isinstance(model, BaseModel):
            ensure_config_attribute(model)
        super().__init__(model, pretrained, device, **kwargs)
        check_finite_model(self.model, pretrained if isinstance(pretrained, str) else 'the model')

    def _init_pipeline(self, cfg: Config | None) -> ImageReader:
        """Returns the reader that replaces mmpretrain's pipeline."""
        return ImageReader(self.model, cfg, self.channel_order)

    def _inputs_to_list(self, inputs: ImageLike | Iterable[ImageLike]) -> list[ImageLike]:
        """Returns the images as a list."""
        return as_list(inputs)

    def __call__(
        self,
        inputs: ImageLike | Iterable[ImageLike],
        return_datasamples: bool = False,
        batch_size: int = 1,
        **kwargs,
    ) -> list:
        """Runs the model on images, with the arguments of mmpretrain's inferencers.

        mmpretrain's own call shows a progress bar that does not move.
        """
        for_preprocess, for_forward, for_visualize, for_postprocess = self._dispatch_kwargs(
            **kwargs
        )
        images = self._inputs_to_list(inputs)
        preds = []
        columns = (
            TextColumn('{task.description}'),
            BarColumn(),
            TaskProgressColumn(),
            TimeRemainingColumn(),
        )
        with Progress(*columns, transient=False) as progress:
            # Only a terminal can redraw a bar. A file or pipe would receive its last state as text.
            is_terminal = progress.console.is_terminal
            progress.disable = mmpretrain_progress.disable_progress_bar or not is_terminal
            batches = self.preprocess(images, batch_size=batch_size, **for_preprocess)
            number = ceil(len(images) / batch_size)
            for batch in progress.track(batches, number, description='Inference'):
                preds.extend(self.forward(batch, **for_forward))
        visualization = self.visualize(images, preds, **for_visualize)
        return self.postprocess(preds, visualization, return_datasamples, **for_postprocess)

    def postprocess(
        self, preds: list, visualization: None, return_datasamples: bool = False
    ) -> Any:
        """Returns the results as they are."""
        return preds
