"""Evaluation of the demo: PSNR of two models and of two fills that learn nothing."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from mae_plugin.apis import ReconstructionInferencer, draw_grid, find_images, save_figure
from mae_plugin.models.masking import masking_from_noise, num_visible
from mae_plugin.models.patches import fill_from_visible, patchify, unpatchify
from mmengine.config import Config
from mmpretrain import get_model
from PIL import Image, ImageOps
from torch import Tensor


@torch.no_grad()
def evaluate(
    config: Config, data: Path, checkpoint: Path, work_dir: Path, device: str
) -> dict[str, float]:
    """Reconstructs the held-out images under fixed masks and draws some of them.

    Returns:
        PSNR by method.
    """
    torch.manual_seed(config.randomness.seed)
    untrained = get_model(config, device=device)
    trained = get_model(config, pretrained=str(checkpoint), device=device)
    patch_size, grid = trained.backbone.patch_size, trained.backbone.patch_resolution
    images = load_images(data / 'val', trained.backbone.img_size[0]).to(device)  # (N, 3, H, W)
    generator = torch.Generator().manual_seed(0)
    noise = torch.rand(len(images), grid[0] * grid[1], generator=generator).to(device)  # (N, L)
    mask = masking_from_noise(noise, num_visible(noise.shape[1], trained.backbone.mask_ratio)).mask

    def reconstruct(model: torch.nn.Module) -> Tensor:
        """Returns reconstructions (N, 3, H, W), in pixels from 0 to 255."""
        mean, std = model.data_preprocessor.mean, model.data_preprocessor.std
        return model.reconstruct((images - mean) / std, noise=noise)[0] * std + mean

    shown = ReconstructionInferencer(trained)(find_images(data / 'val')[:10], batch_size=10)
    rows = [shown[i : i + 2] for i in range(0, len(shown), 2)]
    save_figure(draw_grid(rows, ('masked', 'pasted')), work_dir / 'reconstruction.png')

    visible = visible_pixels(mask, patch_size, grid)  # (N, 1, H, W)
    gaussian = fill_by_gaussian(images, mask, patch_size, grid)
    predictions = {
        'untrained model': reconstruct(untrained),
        'mean of the visible patches': fill_by_mean(images, visible),
        'Gaussian-weighted mean of the visible patches': gaussian,
        'trained model': reconstruct(trained),
    }
    return {
        name: psnr(prediction, images, mask, patch_size) for name, prediction in predictions.items()
    }


def load_images(folder: Path, size: int) -> Tensor:
    """Loads the central squares of images, (N, 3, size, size), RGB from 0 to 255."""
    images = []
    for path in sorted(folder.iterdir()):
        square = ImageOps.fit(Image.open(path), (size, size), Image.Resampling.BICUBIC)
        images.append(np.asarray(square))
    return torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2).float()


def psnr(prediction: Tensor, images: Tensor, mask: Tensor, patch_size: tuple[int, int]) -> float:
    """Returns the peak signal-to-noise ratio in dB on the masked patches, the mean over images.

    Args:
        prediction: (N, 3, H, W), pixels from 0 to 255.
        images: (N, 3, H, W), pixels from 0 to 255.
        mask: (N, L), 1 = removed.
        patch_size: height and width of a patch.
    """
    error = patchify(prediction.clamp(0, 255) - images, patch_size).square().mean(dim=-1)  # (N, L)
    mean_squared = (error * mask).sum(dim=1) / mask.sum(dim=1)  # (N,)
    return (10 * (255**2 / mean_squared.clamp(min=1e-9)).log10()).mean().item()


def fill_by_mean(images: Tensor, visible: Tensor) -> Tensor:
    """Fills images with the mean color of their visible pixels, (N, 1, H, W) with 1 = visible."""
    mean = (images * visible).sum(dim=(2, 3), keepdim=True) / visible.sum(dim=(2, 3), keepdim=True)
    return mean.expand_as(images)


def fill_by_gaussian(
    images: Tensor, mask: Tensor, patch_size: tuple[int, int], grid: tuple[int, int]
) -> Tensor:
    """Fills every removed patch with the Gaussian-weighted mean of the visible patches.

    Sigma is 1.5 patches, the best value from 0.5 to 1.5 on the demo's images. Weighting patches,
    their mean colors or single pixels gave the same result.
    """
    patches = fill_from_visible(patchify(images, patch_size), mask, grid, sigma=1.5)
    return unpatchify(patches, patch_size, grid)


def visible_pixels(mask: Tensor, patch_size: tuple[int, int], grid: tuple[int, int]) -> Tensor:
    """Expands a mask (N, L) with 1 = removed to pixels (N, 1, H, W) with 1 = visible."""
    patches = (1 - mask).unsqueeze(-1).expand(-1, -1, patch_size[0] * patch_size[1])
    return unpatchify(patches, patch_size, grid)
