"""What the inferencers here have in common."""

from __future__ import annotations

import os
from collections.abc import Iterable
from math import ceil

import torch
from mmengine.config import Config
from mmengine.model import BaseModel
from mmpretrain.apis.base import BaseInferencer
from mmpretrain.utils import progress as mmpretrain_progress
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

from ..utils._compat.mmpretrain import ensure_config_attribute
from ..weights.check_finite import check_finite_model
from .images import ImageLike, ImageReader, as_list


def path_as_text(value: object) -> object:
    """Returns a ``pathlib.Path`` as text, which mmpretrain looks for, and anything else as it
    is.
    """
    return os.fspath(value) if isinstance(value, os.PathLike) else value


def check_device(device: str | torch.device) -> None:
    """Raises ValueError if there is no such device on this machine.

    torch itself says so late, and in a process of a data loader in other words.
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
            there = f'{count} of them' if count else 'no GPU that torch can use'
            raise ValueError(
                f'device {device} asks for a GPU, but this machine has {there}; use cpu'
            )
    elif kind.type != 'cpu':
        try:
            torch.empty(0, device=kind)
        except (RuntimeError, AssertionError, NotImplementedError, ModuleNotFoundError):
            raise ValueError(f'device {device} is not on this machine; use cpu') from None


class ImageInferencer(BaseInferencer):
    """mmpretrain's inferencer for any model, also one that was built without a config.

    Args:
        model: a model's name, the path of a config, a run's work dir, a checkpoint of a run, a
            config, or a model.
        pretrained: path or address of weights; True takes those that are published under the
            model's name, or the run's newest.
        device: where to compute; a model stays where it is if left out.
        channel_order: of arrays, see :class:`ImageReader`.
        **kwargs: changes to the config of the model.

    Raises:
        ValueError: for a device that this machine lacks, or weights that are not finite.
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
        return ImageReader(self.model, cfg, self.channel_order)

    def _inputs_to_list(self, inputs: ImageLike | Iterable[ImageLike]) -> list[ImageLike]:
        return as_list(inputs)

    def __call__(
        self,
        inputs: ImageLike | Iterable[ImageLike],
        return_datasamples: bool = False,
        batch_size: int = 1,
        **kwargs,
    ) -> list:
        """Runs the model on images; arguments are those of mmpretrain's inferencers, with a
        progress bar that moves.
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
        # A terminal alone can redraw a bar; a file or pipe would get its last state as a line.
        with Progress(*columns, transient=False) as progress:
            progress.disable = (
                mmpretrain_progress.disable_progress_bar or not progress.console.is_terminal
            )
            batches = self.preprocess(images, batch_size=batch_size, **for_preprocess)
            for batch in progress.track(
                batches, ceil(len(images) / batch_size), description='Inference'
            ):
                preds.extend(self.forward(batch, **for_forward))
        visualization = self.visualize(images, preds, **for_visualize)
        return self.postprocess(preds, visualization, return_datasamples, **for_postprocess)

    def postprocess(
        self, preds: list, visualization: None, return_datasamples: bool = False
    ) -> list:
        """Returns the results as they are."""
        return preds
