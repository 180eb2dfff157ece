"""What a masked autoencoder makes of an image."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from mmengine.config import Config
from mmengine.model import BaseModel
from torch import Tensor, nn

from ..data.collate import CheckedCollate
from ..models import MAE, MAEPretrainHead, MAEViT
from ..models.masking import masking_from_noise, num_visible
from ..models.patches import patch_grid, unpatchify
from .images import ImageLike, is_single, to_pictures
from .inferencer import ImageInferencer

GREY = 128


@dataclass(frozen=True)
class Reconstruction:
    """One image and what the model made of its visible patches; pictures are (H, W, 3) uint8, RGB.

    Attributes:
        original: the image as the model gets it.
        masked: the visible patches, the removed ones grey.
        reconstruction: the model's prediction of every patch.
        pasted: the prediction of the removed patches, the visible ones as in ``original``, to the
            last bit.
        mask: (L,) float, 1 = removed.
        loss: on the removed patches, in the space in which the model is trained.
        path: the image's file, if it came from one.
        used_ground_truth_stats: whether brightness and contrast of removed patches were looked up
            in the original.
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
        """The four pictures side by side on white, ``gap`` pixels apart."""
        white = np.full((len(self.original), gap, 3), 255, np.uint8)
        return np.hstack(
            [self.original, white, self.masked, white, self.reconstruction, white, self.pasted]
        )


def check_reconstructs(model: nn.Module) -> None:
    """Raises ValueError if a model is none that predicts pixels."""
    if not isinstance(model, MAE) or not isinstance(model.head, MAEPretrainHead):
        head = type(getattr(model, 'head', None)).__name__
        raise ValueError(
            f'{type(model).__name__} with {head} predicts no pixels, so there is nothing to '
            'reconstruct; give a '
            'pre-training model, MAE with MAEPretrainHead'
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
    """Reconstructs normalised images (B, C, H, W) on the model's device, in the mode that the model
    is in.

    Args:
        model: the model.
        inputs: normalised images.
        mask: (B, L), 1 = removed, or True for a random one.
        use_ground_truth_stats: see :meth:`MAE.reconstruct`.
        bands: see :func:`to_pictures`.
        pixel_range: see :func:`to_pictures`.
    """
    pred, mask = model.predict_patches(inputs, mask)
    pixels = model.head.to_pixels(pred, inputs, mask, use_ground_truth_stats)
    original, predicted = (
        to_pictures(images, model.data_preprocessor, bands, pixel_range)
        for images in (inputs, pixels)
    )
    patch_size = model.head.patch_size
    grid = patch_grid(inputs, patch_size)
    area = patch_size[0] * patch_size[1]
    removed = unpatchify(mask.unsqueeze(-1).expand(-1, -1, area), patch_size, grid)
    removed = removed.bool().permute(0, 2, 3, 1).cpu().numpy()
    return [
        Reconstruction(
            original=original[i],
            masked=np.where(removed[i], np.uint8(GREY), original[i]),
            reconstruction=predicted[i],
            pasted=np.where(removed[i], predicted[i], original[i]),
            mask=mask[i].cpu(),
            loss=model.head.loss(pred[i : i + 1], inputs[i : i + 1], mask[i : i + 1]).item(),
            used_ground_truth_stats=use_ground_truth_stats and model.head.norm_pix,
        )
        for i in range(len(inputs))
    ]


class ReconstructionInferencer(ImageInferencer):
    """Reconstructs images, in the form of mmpretrain's inferencers.

    The call takes an image or a list of them (paths, arrays, PIL images, or one folder),
    ``batch_size``, and:

    - ``mask_ratio``: share of patches to remove; the model's own if left out.
    - ``mask``: what to remove, 1 = removed, (L,), or (h, w) for the grid of patches, or one of
        these per image.
    - ``seed``: of the random masks; an image's does not depend on the size of the batch. None draws
        new ones.
    - ``use_ground_truth_stats``: with per-patch-normalised targets, bring removed patches back by
      their own mean and standard deviation; otherwise these are estimated from the visible patches.

    It returns a list of :class:`Reconstruction`. As with all of mmpretrain's inferencers, the model
    is in evaluation mode from then on.

    Args:
        *args: as for :class:`ImageInferencer`.
        bands: what to show of images with many channels, see :func:`to_pictures`.
        pixel_range: what to show as black and as white, see :func:`to_pictures`.
        **kwargs: as for :class:`ImageInferencer`.

    Raises:
        ValueError: if the model predicts no pixels.
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
        """Yields batches with their masks."""
        if mask is not None and mask_ratio is not None:
            raise ValueError(
                'mask and mask_ratio were both given; the mask says it all, so leave mask_ratio out'
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
        normalised = self.model.data_preprocessor(data, False)['inputs']
        # A seed is also for backbones that draw their masks themselves; it is gone after the call.
        with torch.random.fork_rng(
            [normalised.device] if normalised.is_cuda else [], enabled=seed is not None
        ):
            if seed is not None:
                torch.manual_seed(seed)
            found = reconstruct_batch(
                self.model, normalised, mask, use_ground_truth_stats, self.bands, self.pixel_range
            )
        return [
            replace(result, path=sample.get('img_path'))
            for result, sample in zip(found, data['data_samples'], strict=True)
        ]


def draw_masks(
    model: MAE,
    images: Tensor,
    mask_ratio: float | None = None,
    generator: torch.Generator | None = None,
) -> Tensor | bool:
    """Random masks (B, L), each drawn by itself, so that they do not depend on the size of the
    batch.

    Args:
        model: the model.
        images: (B, C, H, W).
        mask_ratio: share of patches to remove; the model's own if left out.
        generator: of random numbers.

    Returns:
        The masks; True for a backbone that draws its own.

    Raises:
        ValueError: if that backbone is asked for a mask ratio.
    """
    backbone = model.backbone
    if not isinstance(backbone, MAEViT):
        if mask_ratio is not None:
            raise ValueError(
                f'{type(backbone).__name__} draws its own masks; leave mask_ratio={mask_ratio} out'
            )
        return True
    length = math.prod(patch_grid(images, backbone.patch_size))
    num_keep = num_visible(length, backbone.mask_ratio if mask_ratio is None else mask_ratio)
    noise = torch.stack([torch.rand(length, generator=generator) for _ in images])
    return masking_from_noise(noise, num_keep).mask


def _one_per_image(mask: Tensor | np.ndarray, images: int, length: int) -> Tensor:
    """A mask of one's own as (images, length)."""
    mask = torch.as_tensor(mask)
    if mask.numel() not in (length, images * length):
        raise ValueError(
            f'mask has shape {tuple(mask.shape)}, but there are {images} images of {length} '
            f'patches; give ({length},), '
            f'or one of these per image'
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
    """Hides patches of an image and lets a model fill them in.

    Args:
        model: a model's name, the path of a config, a config, or a model.
        image: a path, an array, a PIL image, or a list of these.
        pretrained: path or address of weights. If left out, a name gets its published
            weights, and a model keeps its own.
        mask_ratio: share of patches to remove; the model's own if left out.
        mask: what to remove, see :class:`ReconstructionInferencer`.
        seed: of the random mask; None for another one each time.
        use_ground_truth_stats: see :class:`ReconstructionInferencer`.
        device: where to compute.
        batch_size: images at once.
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
