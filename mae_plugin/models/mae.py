"""MAE, the algorithm: wires backbone, decoder and head, and checks that they fit."""

from __future__ import annotations

import math
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
from .patches import patch_grid, to_pair


class MAE(BaseSelfSupervisor):
    """Masked autoencoder, after "Masked Autoencoders Are Scalable Vision Learners" (He et al.,
    2021).

    Sizes that decoder and head do not name are taken from a :class:`MAEViT` backbone. With a
    foreign backbone (mmpretrain's ``MAEHiViT``) every part keeps its own.

    Args:
        backbone: config or module of the encoder.
        neck: config or module of the decoder.
        head: config or module of the head.
        target_generator: not used by MAE; accepted as in every self-supervised algorithm of
            mmpretrain.
        pretrained: path or address of a checkpoint to start from.
        data_preprocessor: config or module that normalises the images.
        init_cfg: mmengine initialisation config.

    Attributes:
        data_share: after :meth:`loss` of images with pixels without data, the share of removed
            patches that count in it, a scalar; otherwise None. :class:`AutoAmpOptimWrapper` weights
            the ranks and steps of an update by it.

    Raises:
        ValueError: if decoder or head name a size that is not the backbone's, or the means of the
            data preprocessor are for another number of channels.
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
            sizes = dict(
                num_patches=backbone.num_patches,
                grid_size=backbone.patch_resolution,
                patch_size=backbone.patch_size,
                in_chans=backbone.in_channels,
                embed_dim=backbone.embed_dims,
            )
            neck = _fit(neck, MAEPretrainDecoder, sizes)
            head = _fit(
                head,
                MAEPretrainHead,
                dict(patch_size=backbone.patch_size, in_channels=backbone.in_channels),
            )
        super().__init__(
            backbone=backbone,
            neck=neck,
            head=head,
            target_generator=target_generator,
            pretrained=pretrained,
            data_preprocessor=data_preprocessor,
            init_cfg=init_cfg,
        )
        if isinstance(self.neck, MAEPretrainDecoder) and isinstance(self.head, MAEPretrainHead):
            predicted = self.neck.decoder_pred.out_features
            pixels = math.prod(self.head.patch_size) * self.head.in_channels
            if predicted != pixels:
                raise ValueError(
                    f'the decoder predicts {predicted} numbers per patch, but a patch has '
                    f'{pixels} pixels'
                )

        mean = getattr(self.data_preprocessor, 'mean', None)
        if (
            isinstance(mean, Tensor)
            and isinstance(backbone, MAEViT)
            and len(mean) not in (1, backbone.in_channels)
        ):
            raise ValueError(
                f'the data_preprocessor has a mean of {len(mean)} channels, but the backbone takes '
                f'{backbone.in_channels}; give one value per channel (BandDataPreprocessor takes '
                'any number of them)'
            )
        self._compiled: Callable | None = None
        self.allows_partial_load = False
        self.data_share: Tensor | None = None
        self.register_load_state_dict_pre_hook(_refuse_other_weights)

    def load_state_dict(
        self, state_dict: Mapping[str, Tensor], strict: bool = True, assign: bool = False
    ) -> NamedTuple:
        """As in torch; weights of another architecture are refused unless ``strict=False`` says to
        load a part.

        mmengine loads by other means, and only warns of what does not fit; there they are refused
        in any case.
        """
        self.allows_partial_load = not strict
        try:
            return super().load_state_dict(state_dict, strict, assign)
        finally:
            self.allows_partial_load = False

    def extract_feat(self, inputs: Tensor) -> tuple[Tensor, ...]:
        """Features of whole images (B, C, H, W), in the backbone's ``out_type``, one tensor per
        ``out_indices``.
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
        """The reconstruction loss on the removed patches.

        Args:
            inputs: (B, C, H, W), normalised pixels.
            data_samples: patches with a pixel of their ``nodata``, (H, W) bool, are left out if
                they have it.
            mask: True for a mask of the backbone's kind, or the mask itself, as for
                :meth:`MAEViT.forward`.
            noise: (B, L) to draw the mask from, the smallest kept.

        Returns:
            ``dict(loss=...)`` with a scalar.
        """
        counts = self._patches_with_data(data_samples)
        if not self._works_on_removed_only():
            pred, mask = self.predict_patches(inputs, mask, noise)
            self._note_share(mask, counts)
            return dict(
                loss=self.head.loss(pred, inputs, mask if counts is None else mask * counts)
            )
        _refuse_no_mask(mask)
        # Drawn outside of the compiled part, so that a seed means the same masks in every mode.
        masking = self.backbone.make_masking(inputs, mask, noise)
        self._note_share(masking.mask, counts)
        return dict(loss=self._compiled_or_not(inputs, masking, counts))

    def _patches_with_data(self, data_samples: list[DataSample] | None) -> Tensor | None:
        """(B, L) bool, or None if nothing says that pixels lack data."""
        if not data_samples or 'nodata' not in data_samples[0]:
            return None
        nodata = torch.stack([sample.nodata for sample in data_samples])
        return ~mask_from_pixels(nodata, self.head.patch_size)

    def _note_share(self, mask: Tensor, counts: Tensor | None) -> None:
        self.data_share = (
            None if counts is None else (mask * counts).sum() / mask.sum().clamp(min=1)
        )

    def compile(self, **options) -> None:
        """Compiles what leads from normalised images and a masking to the loss, in place; weights
        keep their names.

        Masks are drawn outside, so a seed means the same in both modes. Where compilation turns out
        not to work, for want of a compiler, say, one log line says so and training goes on without
        it.

        Args:
            **options: arguments of ``torch.compile``.
        """
        self._compiled = torch.compile(self._loss_of_removed, **options)

    def _compiled_or_not(self, inputs: Tensor, masking: Masking, counts: Tensor | None) -> Tensor:
        if self._compiled is not None:
            try:
                return self._compiled(inputs, masking, counts)
            except CompileError as error:
                reason = str(error).strip().splitlines()[0]
                print_log(
                    f'torch.compile does not work here ({reason}); going on without it.',
                    logger='current',
                )
                self._compiled = None
        return self._loss_of_removed(inputs, masking, counts)

    def __getstate__(self) -> dict:
        # A copy must not go on using the weights of its original; it can be compiled again.
        return {**super().__getstate__(), '_compiled': None}

    def _works_on_removed_only(self) -> bool:
        """Whether the parts are ours and the loss is known to look at removed patches alone."""
        kinds = dict(backbone=MAEViT, neck=MAEPretrainDecoder, head=MAEPretrainHead)
        ours = all(type(getattr(self, part)) is kind for part, kind in kinds.items())
        return ours and type(self.head.loss_module) is PixelReconstructionLoss

    def _loss_of_removed(self, inputs: Tensor, masking: Masking, counts: Tensor | None) -> Tensor:
        grid = patch_grid(inputs, self.backbone.patch_size)
        latent, mask, ids_restore = self.backbone(inputs, masking)
        if masking.ids_removed.shape[1] == 0:
            return self.head.loss(self.neck(latent, ids_restore, grid), inputs, mask)
        pred = self.neck(latent, ids_restore, grid, removed_only=True)
        return self.head.loss_of_removed(pred, inputs, masking.ids_removed, counts)

    @torch.no_grad()
    def reconstruct(
        self,
        inputs: Tensor,
        mask: Tensor | bool = True,
        noise: Tensor | None = None,
        use_ground_truth_stats: bool = False,
    ) -> tuple[Tensor, Tensor]:
        """Predicts every patch, without gradients.

        Args:
            inputs: (B, C, H, W), normalised pixels.
            mask: True for a mask of the backbone's kind, or the mask itself, as for
                :meth:`MAEViT.forward`.
            noise: (B, L) to draw the mask from, the smallest kept.
            use_ground_truth_stats: bring predictions of per-patch-normalised pixels back by the
                removed patches' own statistics, instead of those estimated from the visible
                patches.

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
            noise: (B, L) to draw the mask from, the smallest kept.

        Returns:
            The predictions (B, L, patch_size[0] * patch_size[1] * C) in the space of the head's
            target, and the mask (B, L), 1 = removed.
        """
        _refuse_no_mask(mask)
        ours = isinstance(self.backbone, MAEViT)
        if ours:
            latent, mask, ids_restore = self.backbone(inputs, mask, noise)
        elif mask is True and noise is None:
            latent, mask, ids_restore = self.backbone(inputs)
        else:
            raise ValueError(
                f'{type(self.backbone).__name__} draws its own masks; leave mask and noise out'
            )
        if ours and isinstance(self.neck, MAEPretrainDecoder):
            return self.neck(
                latent, ids_restore, patch_grid(inputs, self.backbone.patch_size)
            ), mask
        return self.neck(latent, ids_restore), mask


def _refuse_no_mask(mask: Tensor | bool | None) -> None:
    if mask is None or mask is False:
        raise ValueError(
            f'mask={mask} leaves nothing to predict; extract_feat encodes whole images'
        )


def _refuse_other_weights(
    model: MAE, state_dict: dict, prefix: str, local_metadata: dict, *_: object
) -> None:
    # Inside another module, that module decides what is missing: LoRA stores a few tensors of its
    # own and no others.
    if not prefix and not model.allows_partial_load and not is_checked(local_metadata, model):
        check_weights(state_dict, model)


def _fit(part: dict | nn.Module | None, kind: type, sizes: dict) -> dict | nn.Module | None:
    """Fills the sizes that ``part``, a config or module of ``kind``, leaves out; refuses those that
    differ.
    """
    is_config = isinstance(part, dict)
    cls = part.get('type') if is_config else type(part)
    cls = MODELS.get(cls) if isinstance(cls, str) else cls
    if cls is None or not issubclass(cls, kind):
        return part
    given = part if is_config else vars(part)
    for name, size in sizes.items():
        own = given.get(name)
        if own is not None and (own if isinstance(size, int) else to_pair(own)) != size:
            raise ValueError(
                f'{kind.__name__} was given {name}={own}, but the backbone has {size}; leave '
                f'{name} out to take it'
            )
    return {**part, **sizes} if is_config else part
