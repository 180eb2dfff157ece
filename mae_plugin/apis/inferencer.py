"""What the inferencers here have in common."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from mmengine.config import Config
from mmengine.model import BaseModel
from mmpretrain.apis.base import BaseInferencer

from .images import ImageLike, ImageReader, as_list


class ImageInferencer(BaseInferencer):
    """mmpretrain's inferencer for any model, also one that was built without a config.

    Args:
        model: a model's name, the path of a config, a config, or a model.
        pretrained: path or address of weights; True takes those that are published under the model's name.
        device: where to compute; a model stays where it is if left out.
        channel_order: of arrays, see :class:`ImageReader`.
        **kwargs: changes to the config of the model.
    """

    def __init__(
        self,
        model: BaseModel | str | Config,
        pretrained: bool | str = True,
        device: str | torch.device | None = None,
        channel_order: str = 'bgr',
        **kwargs,
    ) -> None:
        self.channel_order = channel_order
        if isinstance(model, BaseModel) and not hasattr(model, '_config'):
            # mmpretrain's inferencers look for what get_model notes down.
            model._config = None
        super().__init__(model, pretrained, device, **kwargs)

    def _init_pipeline(self, cfg: Config | None) -> ImageReader:
        return ImageReader(self.model, cfg, self.channel_order)

    def _inputs_to_list(self, inputs: ImageLike | Iterable[ImageLike]) -> list[ImageLike]:
        return as_list(inputs)

    def postprocess(self, preds: list, visualization: None, return_datasamples: bool = False) -> list:
        """Returns the results as they are."""
        return preds
