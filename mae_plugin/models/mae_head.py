"""MAEPretrainHead: pixel targets and the loss on the removed patches."""

from __future__ import annotations

import math

import torch
from mmengine.model import BaseModule
from mmpretrain.registry import MODELS
from torch import Tensor

from .patches import (
    fill_from_visible,
    patch_grid,
    patch_statistics,
    patchify,
    take_tokens,
    to_pair,
    unpatchify,
)


class MAEPretrainHead(BaseModule):
    """Pixel targets and their loss (paper, section 3, "Reconstruction target").

    Accepts every argument of mmpretrain's class with the same meaning. :class:`MAE` fills in sizes
    that are None from its backbone; a head built alone has mmpretrain's defaults.

    Args:
        loss: config of the loss module, called as ``loss(pred, target, mask)``.
        norm_pix: whether targets are normalized by the mean and standard deviation of their own
            patch.
        patch_size: height and width of a patch in pixels; 16 by default.
        in_channels: channels of the image; 3 by default.
    """

    # loss_of_removed gives the same number as loss. A subclass that overrides loss or
    # construct_target has to state it again (see MAE.why_all_patches).
    has_loss_of_removed = True

    def __init__(
        self,
        loss: dict,
        norm_pix: bool = False,
        patch_size: int | tuple[int, int] | None = None,
        in_channels: int | None = None,
    ) -> None:
        super().__init__()
        self.norm_pix = norm_pix
        self.patch_size = to_pair(16 if patch_size is None else patch_size)
        self.in_channels = 3 if in_channels is None else in_channels
        self.loss_module = MODELS.build(loss)

    def patchify(self, imgs: Tensor) -> Tensor:
        """Cuts images into patches: (B, C, H, W) -> (B, L, ph * pw * C)."""
        if imgs.shape[1] != self.in_channels:
            raise ValueError(
                f'images have {imgs.shape[1]} channels, but this head was built with '
                f'{self.in_channels}'
            )
        return patchify(imgs, self.patch_size)

    def unpatchify(self, x: Tensor, grid: tuple[int, int] | None = None) -> Tensor:
        """Assembles images from patches: (B, L, ph * pw * C) -> (B, C, H, W).

        The ``grid`` (h, w) of patches is square if None.
        """
        if grid is None:
            side = math.isqrt(x.shape[1])
            grid = side, side
        return unpatchify(x, self.patch_size, grid)

    def construct_target(self, target: Tensor, ids: Tensor | None = None) -> Tensor:
        """Returns the targets of images: (B, C, H, W) -> (B, L, ph * pw * C).

        Args:
            target: (B, C, H, W), the images.
            ids: (B, K), the patches whose targets are needed; all if None.

        Returns:
            (B, L, ph * pw * C), or (B, K, ph * pw * C).
        """
        patches = self.patchify(target)
        if ids is not None:
            patches = take_tokens(patches, ids)
        if self.norm_pix:
            mean, std = patch_statistics(patches)
            patches = (patches - mean) / std
        return patches

    def loss(self, pred: Tensor, target: Tensor, mask: Tensor) -> Tensor:
        """Returns the mean loss over removed patches; 0 with zero gradients if there is none.

        Args:
            pred: (B, L, ph * pw * C), the decoder's predictions.
            target: (B, C, H, W), the images.
            mask: (B, L), 1 = removed.
        """
        return self._mean(pred, self.construct_target(target), mask)

    def loss_of_removed(
        self, pred: Tensor, target: Tensor, ids_removed: Tensor, has_data: Tensor | None = None
    ) -> Tensor:
        """Returns the value of :meth:`loss` from the predictions of the removed patches alone.

        Args:
            pred: (B, K, ph * pw * C), the decoder's predictions.
            target: (B, C, H, W), the images.
            ids_removed: (B, K), indices of the removed patches, at least one per image.
            has_data: (B, L) bool, False for patches to leave out of the mean; None for none.
        """
        targets = self.construct_target(target, ids_removed)  # (B, K, ph * pw * C)
        if has_data is None:
            return self.loss_module(pred, targets, torch.ones_like(ids_removed))
        counted = has_data.gather(1, ids_removed).float()  # (B, K)
        return self._mean(pred, targets, counted)

    def _mean(self, pred: Tensor, target: Tensor, mask: Tensor) -> Tensor:
        """Returns the mean loss over patches with ``mask`` 1, or 0 if there is none."""
        # With an empty mask the loss module divides 0 by 0. Reading the mask to choose a branch
        # would wait for the device, so the mean over all patches is multiplied by 0 instead.
        some = mask.any()
        return self.loss_module(pred, target, torch.where(some, mask, 1)) * some

    def to_pixels(
        self, pred: Tensor, images: Tensor, mask: Tensor, use_ground_truth_stats: bool = False
    ) -> Tensor:
        """Converts predictions to images in the space of the input.

        Predictions of per-patch-normalized pixels need a mean and a standard deviation. Those of
        removed patches are estimated from the visible patches around them.

        Args:
            pred: (B, L, ph * pw * C), the decoder's predictions.
            images: (B, C, H, W), of which only the visible patches are used.
            mask: (B, L), 1 = removed.
            use_ground_truth_stats: whether the statistics of removed patches are taken from
                ``images`` instead, which reveals the brightness and contrast of removed patches.

        Returns:
            (B, C, H, W).
        """
        grid = patch_grid(images, self.patch_size)
        if self.norm_pix:
            mean, std = patch_statistics(self.patchify(images))  # (B, L, 1) each
            if not use_ground_truth_stats:
                statistics = torch.cat([mean, std], dim=-1)  # (B, L, 2)
                mean, std = fill_from_visible(statistics, mask, grid).split(1, dim=-1)
            pred = pred * std + mean
        return self.unpatchify(pred, grid)
