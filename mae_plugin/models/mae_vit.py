"""MAEViT, the encoder: a Vision Transformer that encodes the visible patches alone."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from mmpretrain.models import VisionTransformer
from mmpretrain.models.utils import resize_pos_embed
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from .adapt import adapt_on_load, wanted_by_encoder
from .grids import note_grid
from .initialize import initialize_as_official
from .mask_file import read_mask
from .masking import (
    MASK_KINDS,
    Masking,
    check_mask_ratio,
    mask_from_pixels,
    masking_from_mask,
    masking_from_noise,
    num_visible,
)
from .patches import patch_grid, patchify, take_tokens, to_pair
from .positions import sincos_position_embedding

OutType = Literal['raw', 'cls_token', 'featmap', 'avg_featmap']


class MAEViT(VisionTransformer):
    """Vision Transformer for masked-autoencoder pre-training (paper, section 3, "MAE encoder").

    Accepts every argument of mmpretrain's ``MAEViT`` with the same meaning, and ``in_channels``.
    Weights are initialized at construction by the authors' scheme; ``init_cfg`` and loaded weights
    replace them.

    Args:
        arch: ``'b'``, ``'l'``, ``'h'``, another name of ``VisionTransformer.arch_zoo``, or a dict
            with ``embed_dims``, ``num_layers``, ``num_heads`` and ``feedforward_channels``.
        img_size: height and width of the usual input in pixels. The position embedding is resized
            for inputs of another size.
        patch_size: height and width of a patch in pixels.
        out_indices: layers whose output the unmasked forward returns.
        drop_rate: dropout inside the transformer layers.
        drop_path_rate: stochastic depth rate of the last layer; it increases linearly from 0.
        norm_cfg: config of the normalization layers.
        final_norm: whether the last layer's output is normalized.
        out_type: output of the unmasked forward: ``'raw'`` (B, 1 + L, D), ``'cls_token'`` (B, D),
            ``'featmap'`` (B, D, h, w) or ``'avg_featmap'`` (B, D).
        interpolate_mode: interpolation of the position embedding.
        patch_cfg: further arguments of mmcv's ``PatchEmbed``.
        layer_cfgs: further arguments of each ``TransformerEncoderLayer``.
        mask_ratio: share of patches to remove, in [0, 1).
        init_cfg: mmengine initialization config.
        in_channels: channels of the input images.
        with_cp: whether masked training stores only the input of each layer and computes the rest
            again for the backward pass: less memory for a third more time.
        mask_kind: the kind of masks that are drawn: ``'random'``, ``'block'`` for rectangles,
            ``'grid'`` for an even spread. A path of an ``.npy`` file or an image of ``img_size``
            gives one fixed mask, which removes every patch with a pixel other than 0.

    Raises:
        ValueError: if the patches do not tile ``img_size``, or an argument is out of range.
        FileNotFoundError: if ``mask_kind`` is neither a kind nor a file.
    """

    # forward takes a Masking. A subclass that overrides forward has to state it again (see
    # MAE.why_all_patches).
    encodes_maskings = True

    def __init__(
        self,
        arch: str | dict = 'b',
        img_size: int | tuple[int, int] = 224,
        patch_size: int | tuple[int, int] = 16,
        out_indices: Sequence[int] | int = -1,
        drop_rate: float = 0.0,
        drop_path_rate: float = 0.0,
        norm_cfg: dict = dict(type='LN', eps=1e-6),
        final_norm: bool = True,
        out_type: OutType = 'raw',
        interpolate_mode: str = 'bicubic',
        patch_cfg: dict = dict(),
        layer_cfgs: Sequence[dict] | dict = dict(),
        mask_ratio: float = 0.75,
        init_cfg: dict | list[dict] | None = None,
        in_channels: int = 3,
        with_cp: bool = False,
        mask_kind: str = 'random',
    ) -> None:
        check_mask_ratio(mask_ratio)
        super().__init__(
            arch=arch,
            img_size=to_pair(img_size),
            patch_size=to_pair(patch_size),
            in_channels=in_channels,
            norm_cfg=norm_cfg,
            final_norm=final_norm,
            layer_cfgs=layer_cfgs,
            patch_cfg=patch_cfg,
            # A copy, because VisionTransformer modifies the sequence.
            out_indices=out_indices if isinstance(out_indices, int) else list(out_indices),
            out_type=out_type,
            interpolate_mode=interpolate_mode,
            drop_path_rate=drop_path_rate,
            drop_rate=drop_rate,
            init_cfg=init_cfg,
        )
        projection = self.patch_embed.projection
        self.mask_ratio = mask_ratio
        self.with_cp = with_cp
        self.in_channels = projection.in_channels
        self.patch_size = tuple(projection.stride)
        self.num_patches = self.patch_resolution[0] * self.patch_resolution[1]
        patch_grid(self.img_size, self.patch_size)
        # Patches that do not overlap can be projected one by one, so that removed patches cost
        # nothing. Any other projection needs the whole image.
        self._patches_are_separate = (
            type(projection) is nn.Conv2d
            and projection.kernel_size == projection.stride
            and projection.padding == (0, 0)
            and projection.dilation == (1, 1)
            and projection.groups == 1
        )
        self.mask_kind = mask_kind
        self.register_buffer('fixed_mask', None, persistent=False)
        if mask_kind not in MASK_KINDS:
            pixels = read_mask(mask_kind, self.img_size)
            fixed = mask_from_pixels(pixels, self.patch_size)  # (1, L)
            self.fixed_mask = masking_from_mask(fixed, (1, self.num_patches)).mask
            # A Python number, because reading the buffer in a step would wait for the device.
            self._num_visible = self.num_patches - int(fixed.sum())
        self.register_state_dict_post_hook(note_grid)
        self.pos_embed.requires_grad = False
        self.pos_embed.data.copy_(sincos_position_embedding(self.patch_resolution, self.embed_dims))
        initialize_as_official(self)
        for module in self.modules():
            # torch.compile treats numpy's floats as arrays, which breaks the graph at every layer.
            if hasattr(module, 'drop_prob'):
                module.drop_prob = float(module.drop_prob)

    def init_weights(self) -> None:
        """Applies ``init_cfg``, which may load a checkpoint.

        Without one, the weights initialized at construction stay.
        """
        # VisionTransformer's own method would overwrite the sine-cosine embedding by a random one.
        super(VisionTransformer, self).init_weights()

    def forward(
        self, x: Tensor, mask: Tensor | Masking | bool | None = True, noise: Tensor | None = None
    ) -> tuple[Tensor, ...]:
        """Encodes the visible patches of images, or whole images.

        Args:
            x: (B, C, H, W), normalized pixels.
            mask: True draws a mask of the kind ``mask_kind``. A tensor is used as the mask, bool or
                0/1 with 1 = removed: of patches (B, L), or of pixels (B, H, W) or (1, H, W), which
                removes the patches with any marked pixel. The visible tokens are then in raster
                order. A :class:`Masking` is used as :meth:`make_masking` returned it. False or None
                encodes the whole image.
            noise: (B, L), uniform in [0, 1), from which the mask is drawn; ``torch.rand`` if None.
                For random masks the patches of smallest noise are kept.

        Returns:
            With a mask, ``latent`` (B, 1 + L_visible, D), ``mask`` (B, L) float with 1 = removed,
            and ``ids_restore`` (B, L). Without, the tuple of features that
            ``VisionTransformer.forward`` returns.

        Raises:
            ValueError: for images that patches do not tile, another number of channels, a mask or
                noise of another shape, a mask that removes different numbers of patches per image,
                or mask and noise together.
        """
        if mask is None or mask is False:
            return super().forward(x)
        masking = mask if isinstance(mask, Masking) else self.make_masking(x, mask, noise)

        # Removed patches are dropped before the first layer (paper, figure 1).
        grid = patch_grid(x, self.patch_size)
        pos_embed = resize_pos_embed(
            self.pos_embed, self.patch_resolution, grid, self.interpolate_mode
        )  # (1, 1 + L, D)
        tokens = self._embed(x, masking.ids_keep)  # (B, L_visible, D)
        tokens = tokens + pos_embed[0, 1:][masking.ids_keep]
        cls_token = self.cls_token + pos_embed[:, :1]  # (1, 1, D)
        latent = torch.cat([cls_token.expand(len(x), -1, -1), tokens], dim=1)

        for layer in self.layers:
            latent = (
                checkpoint(layer, latent, use_reentrant=False) if self.with_cp else layer(latent)
            )
        if self.final_norm:
            latent = self.norm1(latent)
        return latent, masking.mask, masking.ids_restore

    def make_masking(
        self, x: Tensor, mask: Tensor | bool = True, noise: Tensor | None = None
    ) -> Masking:
        """Decides which patches of images (B, C, H, W) are removed.

        Arguments and errors as for :meth:`forward`.
        """
        if x.shape[1] != self.in_channels:
            raise ValueError(
                f'images have {x.shape[1]} channels, but this MAEViT was built with '
                f'{self.in_channels}'
            )
        grid = patch_grid(x, self.patch_size)
        shape = (len(x), grid[0] * grid[1])  # (B, L)
        if mask is not True:
            return self._use_mask(x, mask, noise, shape)
        if noise is None and self.fixed_mask is not None:
            return self._use_fixed_mask(x, shape)
        if noise is None:
            noise = torch.rand(shape, device=x.device)
        elif tuple(noise.shape) != shape:
            raise ValueError(
                f'noise has shape {tuple(noise.shape)}, but these images need {shape}, (images, '
                'patches)'
            )
        # With a fixed mask, given noise draws a random one.
        arrange = MASK_KINDS.get(self.mask_kind, MASK_KINDS['random'])
        noise = arrange(noise.to(x.device), grid)
        return masking_from_noise(noise, num_visible(shape[1], self.mask_ratio))

    def _use_mask(
        self, x: Tensor, mask: Tensor, noise: Tensor | None, shape: tuple[int, int]
    ) -> Masking:
        """Returns the masking of a given mask of patches or pixels."""
        if not isinstance(mask, Tensor):
            raise ValueError(
                f'mask={mask!r} is neither True, False, None nor a tensor of shape {shape}'
            )
        if noise is not None:
            raise ValueError('mask and noise were both given; leave noise out to use the mask')
        if mask.ndim == 3:
            height, width = x.shape[2:]
            if mask.shape[0] not in (1, len(x)) or mask.shape[1:] != x.shape[2:]:
                raise ValueError(
                    f'a mask of pixels for these images is {(len(x), height, width)} or '
                    f'{(1, height, width)}, not {tuple(mask.shape)}'
                )
            mask = mask_from_pixels(mask, self.patch_size).expand(len(x), -1)  # (B, L)
        return masking_from_mask(mask.to(x.device), shape)

    def _use_fixed_mask(self, x: Tensor, shape: tuple[int, int]) -> Masking:
        """Returns the masking of the mask that was read from a file."""
        size, own = tuple(x.shape[2:]), tuple(self.img_size)
        if size != own:
            raise ValueError(f'the mask {self.mask_kind} is for images of {own} pixels, not {size}')
        return masking_from_noise(self.fixed_mask.expand(shape), self._num_visible)

    def _embed(self, x: Tensor, ids_keep: Tensor) -> Tensor:
        """Projects the visible patches alone: (B, C, H, W) -> (B, L_visible, D)."""
        embed = self.patch_embed
        if not self._patches_are_separate:
            return take_tokens(embed(x)[0], ids_keep)
        patches = take_tokens(patchify(x, self.patch_size), ids_keep)  # (B, L_visible, ph * pw * C)
        # (D, C, ph, pw) to the order in which patchify flattens a patch: rows, columns, channels.
        weight = embed.projection.weight.permute(0, 2, 3, 1).flatten(1)
        tokens = nn.functional.linear(patches, weight, embed.projection.bias)
        return tokens if embed.norm is None else embed.norm(tokens)

    def _prepare_pos_embed(
        self, state_dict: dict, prefix: str, local_metadata: dict, *args: object
    ) -> None:
        """Adapts weights before they are loaded; a load hook.

        ``VisionTransformer``'s own method assumes that every grid of patches is square.
        """
        adapt_on_load(state_dict, wanted_by_encoder(self, prefix), local_metadata)
