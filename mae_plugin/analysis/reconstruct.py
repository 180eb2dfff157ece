"""Reconstruction of batches of normalized images by a masked autoencoder."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from ..models import MAE, MAEPretrainHead, MAEViT
from ..models.masking import masking_from_noise, num_visible
from ..models.patches import patch_grid, unpatchify
from .images import to_pictures

GRAY = 128
"""Value of removed patches in pictures of masked images."""


@dataclass(frozen=True)
class Reconstruction:
    """One image and its reconstruction from its visible patches; pictures are (H, W, 3) uint8, RGB.

    Attributes:
        original: input of the model as an image.
        masked: visible patches, with gray in place of the removed ones.
        reconstruction: prediction of every patch.
        pasted: prediction of the removed patches, and the visible patches exactly as in
            ``original``.
        mask: (L,) float, 1 = removed.
        loss: loss on the removed patches, in the space of training.
        path: file of the image; None if it does not come from a file.
        used_ground_truth_stats: whether the predictions of removed patches were scaled by their
            true mean and standard deviation.
    """

    original: np.ndarray
    masked: np.ndarray
    reconstruction: np.ndarray
    pasted: np.ndarray
    mask: Tensor
    loss: float
    path: str | None = None
    used_ground_truth_stats: bool = False

    def panel(self, gap: int = 2) -> np.ndarray:
        """Returns the four pictures side by side on white, ``gap`` pixels apart."""
        white = np.full((len(self.original), gap, 3), 255, np.uint8)
        return np.hstack(
            [self.original, white, self.masked, white, self.reconstruction, white, self.pasted]
        )


def check_reconstructs(model: nn.Module) -> None:
    """Raises ValueError if a model does not predict pixels."""
    if not isinstance(model, MAE) or not isinstance(model.head, MAEPretrainHead):
        head = type(getattr(model, 'head', None)).__name__
        raise ValueError(
            f'{type(model).__name__} with {head} predicts no pixels, so there is nothing to '
            'reconstruct; give a pre-training model, MAE with MAEPretrainHead'
        )


@torch.no_grad()
def reconstruct_batch(
    model: MAE,
    inputs: Tensor,
    mask: Tensor | bool = True,
    use_ground_truth_stats: bool = False,
    bands: Sequence[int] | None = None,
    pixel_range: tuple[float, float] = (0, 255),
) -> list[Reconstruction]:
    """Reconstructs normalized images on the model's device, in the current mode of the model.

    Args:
        model: the model.
        inputs: (B, C, H, W), normalized images.
        mask: (B, L), 1 = removed, or True for a random mask.
        use_ground_truth_stats: see :meth:`MAE.reconstruct`.
        bands: see :func:`to_pictures`.
        pixel_range: see :func:`to_pictures`.
    """
    head = model.head
    pred, mask = model.predict_patches(inputs, mask)  # (B, L, p * p * C), (B, L)
    pixels = head.to_pixels(pred, inputs, mask, use_ground_truth_stats)  # (B, C, H, W)
    original = to_pictures(inputs, model.data_preprocessor, bands, pixel_range)
    predicted = to_pictures(pixels, model.data_preprocessor, bands, pixel_range)
    area = head.patch_size[0] * head.patch_size[1]
    by_pixel = mask.unsqueeze(-1).expand(-1, -1, area)  # (B, L, p * p)
    removed = unpatchify(by_pixel, head.patch_size, patch_grid(inputs, head.patch_size))
    removed = removed.bool().permute(0, 2, 3, 1).cpu().numpy()  # (B, H, W, 1)
    results = []
    for i in range(len(inputs)):
        one = slice(i, i + 1)
        result = Reconstruction(
            original=original[i],
            masked=np.where(removed[i], np.uint8(GRAY), original[i]),
            reconstruction=predicted[i],
            pasted=np.where(removed[i], predicted[i], original[i]),
            mask=mask[i].cpu(),
            loss=head.loss(pred[one], inputs[one], mask[one]).item(),
            used_ground_truth_stats=use_ground_truth_stats and head.norm_pix,
        )
        results.append(result)
    return results


def draw_masks(
    model: MAE,
    images: Tensor,
    mask_ratio: float | None = None,
    generator: torch.Generator | None = None,
) -> Tensor | bool:
    """Draws random masks (B, L), each on its own, so that they do not depend on the batch size.

    Args:
        model: the model.
        images: (B, C, H, W).
        mask_ratio: share of patches to remove; by default that of the model.
        generator: generator of the random numbers.

    Returns:
        The masks; True for a backbone that draws its own masks.

    Raises:
        ValueError: if ``mask_ratio`` is given for such a backbone.
    """
    backbone = model.backbone
    if not isinstance(backbone, MAEViT):
        if mask_ratio is not None:
            raise ValueError(
                f'{type(backbone).__name__} draws its own masks; leave mask_ratio={mask_ratio} out'
            )
        return True
    length = math.prod(patch_grid(images, backbone.patch_size))
    ratio = backbone.mask_ratio if mask_ratio is None else mask_ratio
    noise = torch.stack([torch.rand(length, generator=generator) for _ in images])  # (B, L)
    return masking_from_noise(noise, num_visible(length, ratio)).mask
