"""MAE, the algorithm: connects backbone, decoder and head, and checks that they fit."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NamedTuple

import torch
from mmengine.logging import print_log
from mmpretrain.models.losses import PixelReconstructionLoss
from mmpretrain.models.selfsup.base import BaseSelfSupervisor
from mmpretrain.registry import MODELS
from mmpretrain.structures import DataSample
from torch import Tensor, nn

from ..utils._compat.torch import CompileError
from .check_weights import check_weights, is_checked
from .mae_decoder import MAEPretrainDecoder
from .mae_head import MAEPretrainHead
from .mae_vit import MAEViT
from .masking import Masking, mask_from_pixels
from .parts import CAPABILITIES, check_means, check_prediction, fill_sizes, why_incapable
from .patches import patch_grid


class MAE(BaseSelfSupervisor):
    """Masked autoencoder ("Masked Autoencoders Are Scalable Vision Learners", He et al., 2021).

    Sizes that the configs of decoder and head leave out are those of a :class:`MAEViT` backbone.
    With another backbone, such as mmpretrain's ``MAEHiViT``, every part keeps its own sizes.

    The decoder predicts the removed patches alone, and the step can be compiled, if all parts
    support it. Subclasses of our parts do, unless they override ``forward``, ``loss`` or
    ``construct_target``; then they have to state again that they support it (see
    :meth:`why_all_patches`).

    Args:
        backbone: config or module of the encoder.
        neck: config or module of the decoder.
        head: config or module of the head.
        target_generator: not used; mmpretrain's self-supervised algorithms have this argument.
        pretrained: path or URL of a checkpoint to start from.
        data_preprocessor: config or module that normalizes the images.
        init_cfg: mmengine initialization config.

    Attributes:
        data_share: after :meth:`loss` of images with pixels without data, the share of removed
            patches that are part of the loss, a scalar; otherwise None.
            :class:`AutoAmpOptimWrapper` weights the ranks and steps of an update by it.
        allows_partial_load: whether weights of another architecture may be loaded in part; True
            while ``load_state_dict(strict=False)`` runs.

    Raises:
        ValueError: if decoder or head have a size that differs from the backbone's, or the data
            preprocessor has means for another number of channels.
    """

    def __init__(
        self,
        backbone: dict | nn.Module,
        neck: dict | nn.Module | None = None,
        head: dict | nn.Module | None = None,
        target_generator: dict | None = None,
        pretrained: str | None = None,
        data_preprocessor: dict | nn.Module | None = None,
        init_cfg: dict | list[dict] | None = None,
    ) -> None:
        if not isinstance(backbone, nn.Module):
            backbone = MODELS.build(backbone)
        if isinstance(backbone, MAEViT):
            patches = dict(patch_size=backbone.patch_size)
            decoder_sizes = dict(
                num_patches=backbone.num_patches,
                grid_size=backbone.patch_resolution,
                in_chans=backbone.in_channels,
                embed_dim=backbone.embed_dims,
                **patches,
            )
            head_sizes = dict(in_channels=backbone.in_channels, **patches)
            neck = fill_sizes(neck, MAEPretrainDecoder, decoder_sizes)
            head = fill_sizes(head, MAEPretrainHead, head_sizes)
        super().__init__(
            backbone=backbone,
            neck=neck,
            head=head,
            target_generator=target_generator,
            pretrained=pretrained,
            data_preprocessor=data_preprocessor,
            init_cfg=init_cfg,
        )
        check_prediction(self.neck, self.head)
        check_means(self.data_preprocessor, backbone)
        self._compiled: Callable | None = None
        self.allows_partial_load = False
        self.data_share: Tensor | None = None
        self.register_load_state_dict_pre_hook(_refuse_other_weights)

    def load_state_dict(
        self, state_dict: Mapping[str, Tensor], strict: bool = True, assign: bool = False
    ) -> NamedTuple:
        """Loads weights as torch does; with ``strict=False``, a part of them.

        mmengine does not call this method when it loads weights, and only warns of weights that do
        not fit. There, weights of another architecture always raise an error.

        Raises:
            ValueError: for weights of another architecture, unless ``strict=False``.
        """
        self.allows_partial_load = not strict
        try:
            return super().load_state_dict(state_dict, strict, assign)
        finally:
            self.allows_partial_load = False

    def extract_feat(self, inputs: Tensor) -> tuple[Tensor, ...]:
        """Returns the backbone's features of whole images, one tensor per ``out_indices``.

        Args:
            inputs: (B, C, H, W), normalized pixels.
        """
        return self.backbone(inputs, mask=None)

    def loss(
        self,
        inputs: Tensor,
        data_samples: list[DataSample] | None = None,
        mask: Tensor | bool = True,
        noise: Tensor | None = None,
        **kwargs,
    ) -> dict[str, Tensor]:
        """Computes the reconstruction loss on the removed patches.

        Args:
            inputs: (B, C, H, W), normalized pixels.
            data_samples: a patch is left out of the loss if any of its pixels is marked in the
                sample's ``nodata``, (H, W) bool.
            mask: True for a mask of the backbone's kind, or the mask itself, as for
                :meth:`MAEViT.forward`.
            noise: (B, L) to draw the mask from; the patches of the smallest noise stay visible.

        Returns:
            ``dict(loss=...)`` with a scalar.

        Raises:
            ValueError: if ``mask`` is None or False.
        """
        has_data = self._patches_with_data(data_samples)  # (B, L) or None
        if self.why_all_patches() is not None:
            pred, mask = self.predict_patches(inputs, mask, noise)  # (B, L, P), (B, L)
            self._set_data_share(mask, has_data)
            if has_data is not None:
                mask = mask * has_data
            return dict(loss=self.head.loss(pred, inputs, mask))
        _check_mask(mask)
        # The mask is drawn outside the compiled function, so that a seed gives the same mask in
        # both modes.
        masking = self.backbone.make_masking(inputs, mask, noise)
        self._set_data_share(masking.mask, has_data)
        return dict(loss=self._run_compiled(inputs, masking, has_data))

    def _patches_with_data(self, data_samples: list[DataSample] | None) -> Tensor | None:
        """Returns (B, L) bool, or None if no pixels without data are marked."""
        if not data_samples or 'nodata' not in data_samples[0]:
            return None
        nodata = torch.stack([sample.nodata for sample in data_samples])  # (B, H, W)
        return ~mask_from_pixels(nodata, self.head.patch_size)  # (B, L)

    def _set_data_share(self, mask: Tensor, has_data: Tensor | None) -> None:
        """Sets ``data_share`` for a mask (B, L) and the patches with data (B, L)."""
        self.data_share = None
        if has_data is not None:
            self.data_share = (mask * has_data).sum() / mask.sum().clamp(min=1)

    def compile(self, **options) -> None:
        """Compiles the computation from normalized images and a masking to the loss, in place.

        Weights keep their names. A seed gives the same masks as without compilation. If the
        compilation fails, for example because no compiler is installed, one log line states the
        reason and training continues without compilation. Has no effect where
        :meth:`why_all_patches` gives a reason.

        Args:
            **options: arguments of ``torch.compile``.
        """
        self._compiled = torch.compile(self._loss_of_removed, **options)

    def why_all_patches(self) -> str | None:
        """Returns why the loss needs predictions of all patches, None if it does not.

        Our backbone, decoder and head state by the attributes ``encodes_maskings``,
        ``predicts_removed_only`` and ``has_loss_of_removed`` that the loss can be computed from the
        removed patches alone, which is faster and can be compiled. A subclass inherits the
        attribute. A subclass that overrides ``forward``, or ``loss`` or ``construct_target`` of the
        head, has to set the attribute in its own body.
        """
        for name, (capability, methods) in CAPABILITIES.items():
            reason = why_incapable(getattr(self, name), capability, methods)
            if reason is not None:
                return reason
        # Another loss may depend on the predictions of visible patches.
        loss_module = self.head.loss_module
        is_known = isinstance(loss_module, PixelReconstructionLoss)
        if not is_known or type(loss_module).forward is not PixelReconstructionLoss.forward:
            return f'the loss is {type(loss_module).__name__}, not PixelReconstructionLoss'
        return None

    def _run_compiled(self, inputs: Tensor, masking: Masking, has_data: Tensor | None) -> Tensor:
        """Computes the loss by the compiled function, if there is one and it can be compiled."""
        if self._compiled is not None:
            try:
                return self._compiled(inputs, masking, has_data)
            except CompileError as error:
                reason = str(error).strip().splitlines()[0]
                print_log(
                    f'torch.compile failed ({reason}); training continues without compilation.',
                    logger='current',
                )
                self._compiled = None
        return self._loss_of_removed(inputs, masking, has_data)

    def __getstate__(self) -> dict:
        # The compiled function of a copy would use the weights of the original.
        return {**super().__getstate__(), '_compiled': None}

    def _loss_of_removed(self, inputs: Tensor, masking: Masking, has_data: Tensor | None) -> Tensor:
        """Computes the loss from predictions of the removed patches alone."""
        grid = patch_grid(inputs, self.backbone.patch_size)
        # (B, 1 + L_visible, D), (B, L), (B, L)
        latent, mask, ids_restore = self.backbone(inputs, masking)
        if masking.ids_removed.shape[1] == 0:
            pred = self.neck(latent, ids_restore, grid)  # (B, L, P)
            return self.head.loss(pred, inputs, mask)
        pred = self.neck(latent, ids_restore, grid, removed_only=True)  # (B, L_removed, P)
        return self.head.loss_of_removed(pred, inputs, masking.ids_removed, has_data)

    @torch.no_grad()
    def reconstruct(
        self,
        inputs: Tensor,
        mask: Tensor | bool = True,
        noise: Tensor | None = None,
        use_ground_truth_stats: bool = False,
    ) -> tuple[Tensor, Tensor]:
        """Predicts the pixels of every patch, without gradients.

        Args:
            inputs: (B, C, H, W), normalized pixels.
            mask: True for a mask of the backbone's kind, or the mask itself, as for
                :meth:`MAEViT.forward`.
            noise: (B, L) to draw the mask from; the patches of the smallest noise stay visible.
            use_ground_truth_stats: if targets are normalized per patch, use the removed patches'
                own mean and standard deviation instead of estimates from the visible patches.

        Returns:
            The reconstruction (B, C, H, W) in the space of ``inputs``, and the mask (B, L), 1 =
            removed.
        """
        pred, mask = self.predict_patches(inputs, mask, noise)
        return self.head.to_pixels(pred, inputs, mask, use_ground_truth_stats), mask

    def predict_patches(
        self, inputs: Tensor, mask: Tensor | bool = True, noise: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Predicts the target of every patch.

        Args:
            inputs: (B, C, H, W), normalized pixels.
            mask: True for a mask of the backbone's kind, or the mask itself, as for
                :meth:`MAEViT.forward`.
            noise: (B, L) to draw the mask from; the patches of the smallest noise stay visible.

        Returns:
            The predictions (B, L, P) in the space of the head's target, with P = patch height *
            patch width * C, and the mask (B, L), 1 = removed.

        Raises:
            ValueError: if ``mask`` is None or False, or a backbone of another kind, which draws its
                own masks, is given a mask or noise.
        """
        _check_mask(mask)
        if not isinstance(self.backbone, MAEViT):
            if mask is not True or noise is not None:
                raise ValueError(
                    f'{type(self.backbone).__name__} draws its own masks; leave mask and noise out'
                )
            latent, mask, ids_restore = self.backbone(inputs)
            return self.neck(latent, ids_restore), mask
        # (B, 1 + L_visible, D), (B, L), (B, L)
        latent, mask, ids_restore = self.backbone(inputs, mask, noise)
        if not isinstance(self.neck, MAEPretrainDecoder):
            return self.neck(latent, ids_restore), mask
        grid = patch_grid(inputs, self.backbone.patch_size)
        return self.neck(latent, ids_restore, grid), mask


def _check_mask(mask: Tensor | bool | None) -> None:
    """Raises ValueError for a mask that removes nothing by definition."""
    if mask is None or mask is False:
        raise ValueError(
            f'mask={mask} leaves nothing to predict; extract_feat encodes whole images'
        )


def _refuse_other_weights(
    model: MAE, state_dict: dict, prefix: str, local_metadata: dict, *_: object
) -> None:
    """Raises ValueError for weights of another architecture; a load-state-dict pre-hook."""
    # Inside another module, that module decides which weights may be missing: LoRA stores only a
    # few tensors of its own.
    if prefix or model.allows_partial_load or is_checked(local_metadata, model):
        return
    check_weights(state_dict, model)
