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
    """Pixel reconstruction (paper, section 3, "Reconstruction target").

    Takes every argument of mmpretrain's class with the same meaning. Sizes left out are the
    backbone's when the head is built by :class:`MAE`, and mmpretrain's defaults when it is built
    alone.

    Args:
        loss: config of the loss module, called as ``loss(pred, target, mask)``.
        norm_pix: whether targets are normalised by the mean and standard deviation of their own
            patch.
        patch_size: height and width of a patch in pixels; 16 alone.
        in_channels: channels of the image; 3 alone.
    """

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
        """(B, C, H, W) -> (B, L, ph * pw * C)."""
        if imgs.shape[1] != self.in_channels:
            raise ValueError(
                f'images have {imgs.shape[1]} channels, but this head was built with '
                f'{self.in_channels}'
            )
        return patchify(imgs, self.patch_size)

    def unpatchify(self, x: Tensor, grid: tuple[int, int] | None = None) -> Tensor:
        """(B, L, ph * pw * C) -> (B, C, H, W); the ``grid`` (h, w) is square if left out."""
        return unpatchify(x, self.patch_size, grid or (math.isqrt(x.shape[1]),) * 2)

    def construct_target(self, target: Tensor, ids: Tensor | None = None) -> Tensor:
        """Images (B, C, H, W) -> what is to be predicted, (B, L, ph * pw * C), or (B, K, …) for
        patches ``ids``.
        """
        patches = self.patchify(target)
        if ids is not None:
            patches = take_tokens(patches, ids)
        if self.norm_pix:
            mean, std = patch_statistics(patches)
            patches = (patches - mean) / std
        return patches

    def loss(self, pred: Tensor, target: Tensor, mask: Tensor) -> Tensor:
        """The mean loss over removed patches; exactly 0, with zero gradients, if there is none.

        Args:
            pred: (B, L, ph * pw * C), the decoder's predictions.
            target: (B, C, H, W), the images.
            mask: (B, L), 1 = removed.
        """
        return self._mean(pred, self.construct_target(target), mask)

    def loss_of_removed(
        self, pred: Tensor, target: Tensor, ids_removed: Tensor, counts: Tensor | None = None
    ) -> Tensor:
        """The same number as :meth:`loss` from the predictions of the removed patches alone.

        Args:
            pred: (B, K, ph * pw * C), the decoder's predictions.
            target: (B, C, H, W), the images.
            ids_removed: (B, K) their patches; at least one in a row.
            counts: (B, L) bool, False for patches to leave out; all count if None.
        """
        targets = self.construct_target(target, ids_removed)
        if counts is None:
            return self.loss_module(pred, targets, torch.ones_like(ids_removed))
        return self._mean(pred, targets, counts.gather(1, ids_removed).float())

    def _mean(self, pred: Tensor, target: Tensor, mask: Tensor) -> Tensor:
        # With an empty mask the loss module divides 0 by 0; over every patch, times zero, it has
        # the right limit.
        some = mask.any()
        return self.loss_module(pred, target, torch.where(some, mask, 1)) * some

    def to_pixels(
        self, pred: Tensor, images: Tensor, mask: Tensor, use_ground_truth_stats: bool = False
    ) -> Tensor:
        """Brings predictions back to the space of the images.

        Per-patch-normalised predictions need a mean and a standard deviation: visible patches have
        their own, those of removed patches are estimated from the visible ones around them, or
        looked up if that is asked for.

        Args:
            pred: (B, L, ph * pw * C), the decoder's predictions.
            images: (B, C, H, W), of which only the visible patches are looked at.
            mask: (B, L), 1 = removed.
            use_ground_truth_stats: take the statistics of removed patches from the images, which
                tells the brightness and contrast of what was hidden.

        Returns:
            (B, C, H, W).
        """
        grid = patch_grid(images, self.patch_size)
        if self.norm_pix:
            mean, std = patch_statistics(self.patchify(images))
            if not use_ground_truth_stats:
                mean, std = fill_from_visible(torch.cat([mean, std], dim=-1), mask, grid).split(
                    1, dim=-1
                )
            pred = pred * std + mean
        return self.unpatchify(pred, grid)
