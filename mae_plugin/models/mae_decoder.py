"""MAEPretrainDecoder, the neck: fills in mask tokens and predicts every patch."""

from __future__ import annotations

import math

import torch
from mmengine.model import BaseModule
from mmpretrain.models.backbones.vision_transformer import TransformerEncoderLayer
from mmpretrain.models.utils import build_norm_layer, resize_pos_embed
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from .adapt import Keys, Wanted, adapt_on_load, note_grid
from .initialize import initialize_as_official
from .patches import invert_permutation, take_tokens, to_pair
from .positions import sincos_position_embedding

DECODER_KEYS = Keys(
    positions='decoder_pos_embed', prediction=('decoder_pred.weight', 'decoder_pred.bias')
)
"""Names of the decoder's tensors whose shapes depend on the size of the images."""


class MAEPretrainDecoder(BaseModule):
    """The light decoder of MAE (paper, section 3, "MAE decoder").

    Takes every argument of mmpretrain's class with the same meaning. Sizes left out are the
    backbone's when the decoder is built by :class:`MAE`, and mmpretrain's defaults when it is built
    alone.

    Args:
        num_patches: number L of patches of the usual image; 196 alone.
        patch_size: height and width of a patch in pixels; 16 alone.
        in_chans: channels of the image; 3 alone.
        embed_dim: dimension D of the encoder's tokens; 1024 alone.
        decoder_embed_dim: dimension of the decoder's tokens.
        decoder_depth: number of transformer layers.
        decoder_num_heads: attention heads per layer.
        mlp_ratio: hidden size of the feed-forward networks over ``decoder_embed_dim``.
        norm_cfg: config of the normalisation layers.
        predict_feature_dim: numbers predicted per patch; ``ph * pw * in_chans``, the pixels, if
            None.
        init_cfg: mmengine initialisation config.
        grid_size: (h, w) with h * w = L; square if None.
        with_cp: as in :class:`MAEViT`.
    """

    def __init__(
        self,
        num_patches: int | None = None,
        patch_size: int | tuple[int, int] | None = None,
        in_chans: int | None = None,
        embed_dim: int | None = None,
        decoder_embed_dim: int = 512,
        decoder_depth: int = 8,
        decoder_num_heads: int = 16,
        mlp_ratio: float = 4,
        norm_cfg: dict = dict(type='LN', eps=1e-6),
        predict_feature_dim: int | None = None,
        init_cfg: dict | list[dict] | None = None,
        grid_size: tuple[int, int] | None = None,
        with_cp: bool = False,
    ) -> None:
        super().__init__(init_cfg=init_cfg)
        self.with_cp = with_cp
        self.grid_size = _grid(num_patches, grid_size)
        self.num_patches = self.grid_size[0] * self.grid_size[1]
        self.patch_size = to_pair(16 if patch_size is None else patch_size)
        self.in_chans = 3 if in_chans is None else in_chans
        self.embed_dim = 1024 if embed_dim is None else embed_dim
        if predict_feature_dim is None:
            predict_feature_dim = math.prod(self.patch_size) * self.in_chans

        self.decoder_embed = nn.Linear(self.embed_dim, decoder_embed_dim)
        self.mask_token = nn.Parameter(torch.zeros(1, 1, decoder_embed_dim))
        self.decoder_pos_embed = nn.Parameter(
            sincos_position_embedding(self.grid_size, decoder_embed_dim), requires_grad=False
        )
        self.decoder_blocks = nn.ModuleList(
            DecoderLayer(
                decoder_embed_dim,
                decoder_num_heads,
                int(mlp_ratio * decoder_embed_dim),
                norm_cfg=norm_cfg,
            )
            for _ in range(decoder_depth)
        )
        self.ln1 = build_norm_layer(norm_cfg, decoder_embed_dim)
        self.decoder_pred = nn.Linear(decoder_embed_dim, predict_feature_dim)
        initialize_as_official(self)
        self.register_load_state_dict_pre_hook(_adapt_weights)
        self.register_state_dict_post_hook(note_grid)

    @property
    def decoder_norm(self) -> nn.Module:
        """The normalisation layer before the prediction."""
        return self.ln1

    def wanted_weights(self, prefix: str = '') -> Wanted:
        """Returns the sizes that the decoder needs of its weights."""
        pixels = math.prod(self.patch_size) * self.in_chans
        # Predictions of features instead of pixels do not depend on the channels.
        predicts_pixels = self.decoder_pred.out_features == pixels
        return Wanted(
            prefix,
            DECODER_KEYS,
            self.patch_size,
            grid=self.grid_size,
            channels=self.in_chans if predicts_pixels else None,
        )

    def forward(
        self,
        x: Tensor,
        ids_restore: Tensor,
        grid: tuple[int, int] | None = None,
        removed_only: bool = False,
    ) -> Tensor:
        """Predicts patches from the encoded visible ones.

        Args:
            x: (B, 1 + L_visible, D), the encoder's ``latent``.
            ids_restore: (B, L), from the encoder.
            grid: (h, w) of these images if it is not ``grid_size``; the position embedding is
                resized to it.
            removed_only: predict only what the encoder has not seen, which is all that the loss
                looks at.

        Returns:
            (B, L, predict_feature_dim), or (B, L - L_visible, …) in the order of
            ``Masking.ids_removed``.
        """
        grid = grid or self.grid_size
        if ids_restore.shape[1] != grid[0] * grid[1]:
            raise ValueError(
                f'ids_restore speaks of {ids_restore.shape[1]} patches, but the grid is {grid[0]} '
                f'x {grid[1]}'
            )
        # Attention does not mind the order of tokens, so they stay as the encoder leaves them: cls,
        # visible, removed.
        pos_embed = resize_pos_embed(self.decoder_pos_embed, self.grid_size, grid)
        positions = pos_embed[0, 1:][invert_permutation(ids_restore)]
        x = self.decoder_embed(x)
        visible = x.shape[1] - 1
        tokens = [
            x[:, :1] + pos_embed[:, :1],
            x[:, 1:] + positions[:, :visible],
            self.mask_token + positions[:, visible:],
        ]
        x = torch.cat(tokens, dim=1)
        first = 1 + visible if removed_only else 1
        for block in self.decoder_blocks[:-1]:
            x = checkpoint(block, x, use_reentrant=False) if self.with_cp else block(x)
        # Nobody asks the last block for the other tokens, though it does look at them.
        x = self.decoder_blocks[-1](x, first) if self.decoder_blocks else x[:, first:]
        x = self.decoder_pred(self.decoder_norm(x))
        return x if removed_only else take_tokens(x, ids_restore)


class DecoderLayer(TransformerEncoderLayer):
    """mmpretrain's encoder layer, which can also work out only the last tokens of a sequence."""

    def forward(self, x: Tensor, first_query: int = 0) -> Tensor:
        """(B, N, D) -> (B, N - first_query, D): attends to all tokens, returns those from
        ``first_query`` on.
        """
        if first_query == 0:
            return super().forward(x)
        attn, normed = self.attn, self.ln1(x)
        dim = attn.embed_dims
        weight, bias = attn.qkv.weight, attn.qkv.bias
        queries = nn.functional.linear(
            normed[:, first_query:], weight[:dim], None if bias is None else bias[:dim]
        )
        keys_values = nn.functional.linear(
            normed, weight[dim:], None if bias is None else bias[dim:]
        )
        # (B, N, parts * heads * head_dims) to one (B, heads, N, head_dims) per part.
        q, k, v = (
            part.unflatten(-1, (attn.num_heads, attn.head_dims)).transpose(1, 2)
            for part in (queries, *keys_values.chunk(2, dim=-1))
        )
        mixed = attn.scaled_dot_product_attention(
            q, k, v, dropout_p=attn.attn_drop if self.training else 0.0
        )
        mixed = attn.proj_drop(attn.proj(mixed.transpose(1, 2).flatten(2)))
        x = x[:, first_query:] + attn.out_drop(attn.gamma1(mixed))
        return self.ffn(self.ln2(x), identity=x)


def _adapt_weights(
    decoder: MAEPretrainDecoder, state_dict: dict, prefix: str, local_metadata: dict, *_: object
) -> None:
    """Adapts weights to the decoder's grid and channels before they are loaded."""
    adapt_on_load(state_dict, decoder.wanted_weights(prefix), local_metadata)


def _grid(num_patches: int | None, grid_size: tuple[int, int] | None) -> tuple[int, int]:
    if grid_size is not None:
        grid_size = to_pair(grid_size)
        if num_patches not in (None, grid_size[0] * grid_size[1]):
            raise ValueError(
                f'num_patches={num_patches} does not fit grid_size={grid_size}; leave one of them '
                'out'
            )
        return grid_size
    num_patches = 196 if num_patches is None else num_patches
    side = math.isqrt(num_patches)
    if side * side != num_patches:
        raise ValueError(
            f'num_patches={num_patches} is not a square number; give grid_size=(h, w) instead'
        )
    return side, side
