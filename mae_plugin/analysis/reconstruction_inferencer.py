"""Reconstruction of images by a masked autoencoder, in the form of mmpretrain's inferencers."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np
import torch
from mmengine.config import Config
from mmengine.model import BaseModel
from torch import Tensor

from ..data.collate import CheckedCollate
from ..models.patches import patch_grid
from .images import ImageLike, is_single
from .inferencer import ImageInferencer
from .reconstruct import Reconstruction, check_reconstructs, draw_masks, reconstruct_batch


class ReconstructionInferencer(ImageInferencer):
    """Reconstructs images, in the form of mmpretrain's inferencers.

    The call takes an image or a list of them (paths, arrays, PIL images, or one folder),
    ``batch_size``, and:

    - ``mask_ratio``: share of patches to remove; by default that of the model.
    - ``mask``: patches to remove, 1 = removed: (L,), or (h, w) for the grid of patches, or one of
      these per image.
    - ``seed``: seed of the random masks. The mask of an image does not depend on the batch size.
      None draws new masks in each call.
    - ``use_ground_truth_stats``: with per-patch-normalized targets, scales the predictions of
      removed patches by their true mean and standard deviation. By default, both are estimated from
      the visible patches.

    The call returns a list of :class:`Reconstruction`. As with all inferencers of mmpretrain, the
    model stays in evaluation mode.

    Args:
        *args: arguments of :class:`ImageInferencer`.
        bands: channels to show of images with many channels, see :func:`to_pictures`.
        pixel_range: values to show as black and as white, see :func:`to_pictures`.
        **kwargs: arguments of :class:`ImageInferencer`.

    Raises:
        ValueError: if the model does not predict pixels.
    """

    preprocess_kwargs = {'mask_ratio', 'mask', 'seed'}
    forward_kwargs = {'use_ground_truth_stats'}

    def __init__(
        self,
        *args,
        bands: Sequence[int] | None = None,
        pixel_range: tuple[float, float] = (0, 255),
        **kwargs,
    ) -> None:
        super().__init__(*args, **kwargs)
        self.bands = bands
        self.pixel_range = pixel_range
        check_reconstructs(self.model)

    def preprocess(
        self,
        inputs: list[ImageLike],
        batch_size: int = 1,
        mask_ratio: float | None = None,
        mask: Tensor | np.ndarray | None = None,
        seed: int | None = 0,
    ) -> Iterator[dict]:
        """Yields batches with their masks.

        Raises:
            ValueError: if both ``mask`` and ``mask_ratio`` are given, or ``mask`` does not fit.
        """
        if mask is not None and mask_ratio is not None:
            raise ValueError(
                'mask and mask_ratio were both given; leave mask_ratio out, as the mask defines it'
            )
        generator = torch.Generator()
        generator.seed() if seed is None else generator.manual_seed(seed)
        done = 0
        for images in self._get_chunk_data(map(self.pipeline, inputs), batch_size):
            batch = CheckedCollate()(images)
            if mask is None:
                chosen = draw_masks(self.model, batch['inputs'], mask_ratio, generator)
            else:
                length = math.prod(patch_grid(batch['inputs'], self.model.head.patch_size))
                chosen = _one_per_image(mask, len(inputs), length)[done : done + len(images)]
            done += len(images)
            yield dict(data=batch, mask=chosen, seed=seed)

    def forward(self, inputs: dict, use_ground_truth_stats: bool = False) -> list[Reconstruction]:
        """Reconstructs a batch."""
        data, mask, seed = inputs['data'], inputs['mask'], inputs['seed']
        normalized = self.model.data_preprocessor(data, False)['inputs']  # (B, C, H, W)
        devices = [normalized.device] if normalized.is_cuda else []
        # Backbones that draw their own masks use torch's generator, which is restored afterwards.
        with torch.random.fork_rng(devices, enabled=seed is not None):
            if seed is not None:
                torch.manual_seed(seed)
            found = reconstruct_batch(
                self.model, normalized, mask, use_ground_truth_stats, self.bands, self.pixel_range
            )
        return [
            replace(result, path=sample.get('img_path'))
            for result, sample in zip(found, data['data_samples'], strict=True)
        ]


def _one_per_image(mask: Tensor | np.ndarray, images: int, length: int) -> Tensor:
    """Returns the mask of the caller as (images, length)."""
    mask = torch.as_tensor(mask)
    if mask.numel() not in (length, images * length):
        raise ValueError(
            f'mask has shape {tuple(mask.shape)}, but there are {images} images of {length} '
            f'patches; give ({length},), or one of these per image'
        )
    return mask.reshape(-1, length).expand(images, -1)


def reconstruct_image(
    model: BaseModel | str | os.PathLike | Config,
    image: ImageLike | Sequence[ImageLike],
    pretrained: bool | str | os.PathLike | None = None,
    mask_ratio: float | None = None,
    mask: Tensor | np.ndarray | None = None,
    seed: int | None = 0,
    use_ground_truth_stats: bool = False,
    device: str | torch.device | None = None,
    batch_size: int = 1,
    **kwargs,
) -> Reconstruction | list[Reconstruction]:
    """Hides patches of an image and predicts them with a model.

    Args:
        model: name of a model, path of a config, a config, or a model.
        image: a path, an array, a PIL image, or a list of these.
        pretrained: path or URL of weights. By default, a name gets its published weights, and a
            model keeps its own.
        mask_ratio: share of patches to remove; by default that of the model.
        mask: patches to remove, see :class:`ReconstructionInferencer`.
        seed: seed of the random mask; None draws a new one in each call.
        use_ground_truth_stats: see :class:`ReconstructionInferencer`.
        device: device of the computation.
        batch_size: number of images in a batch.
        **kwargs: further arguments of :class:`ReconstructionInferencer`.

    Returns:
        A :class:`Reconstruction`, or a list of them for a list of images or a folder.
    """
    inferencer = ReconstructionInferencer(
        model, True if pretrained is None else pretrained, device, **kwargs
    )
    results = inferencer(
        image,
        batch_size=batch_size,
        mask_ratio=mask_ratio,
        mask=mask,
        seed=seed,
        use_ground_truth_stats=use_ground_truth_stats,
    )
    return results[0] if is_single(image) else results
