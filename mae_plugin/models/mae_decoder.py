"""MAEPretrainDecoder, the neck: fills in mask tokens and predicts the removed patches."""

from __future__ import annotations

import math

import torch
from mmengine.model import BaseModule
from mmpretrain.models.backbones.vision_transformer import TransformerEncoderLayer
from mmpretrain.models.utils import build_norm_layer, resize_pos_embed
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from .adapt import Keys, Wanted, adapt_on_load
from .grids import note_grid
from .initialize import initialize_as_official
from .patches import invert_permutation, take_tokens, to_pair
from .positions import sincos_position_embedding

DECODER_KEYS = Keys(
    positions='decoder_pos_embed', prediction=('decoder_pred.weight', 'decoder_pred.bias')
)
"""Names of the decoder's tensors whose shapes depend on the size of the images."""


class MAEPretrainDecoder(BaseModule):
    """The lightweight decoder of MAE (paper, section 3, "MAE decoder").

    Accepts every argument of mmpretrain's class with the same meaning. :class:`MAE` fills in sizes
    that are None from its backbone; a decoder built alone has mmpretrain's defaults.

    Args:
        num_patches: number L of patches of the usual image; 196 by default.
        patch_size: height and width of a patch in pixels; 16 by default.
        in_chans: channels of the image; 3 by default.
        embed_dim: dimension of the encoder's tokens; 1024 by default.
        decoder_embed_dim: dimension D of the decoder's tokens.
        decoder_depth: number of transformer layers.
        decoder_num_heads: attention heads per layer.
        mlp_ratio: hidden size of the feed-forward networks over ``decoder_embed_dim``.
        norm_cfg: config of the normalization layers.
        predict_feature_dim: numbers predicted per patch; ``ph * pw * in_chans``, the pixels, if
            None.
        init_cfg: mmengine initialization config.
        grid_size: (h, w) with h * w = L; square if None.
        with_cp: as in :class:`MAEViT`.

    Raises:
        ValueError: if ``num_patches`` and ``grid_size`` do not match, or ``num_patches`` alone is
            not a square number.
    """

    # forward takes removed_only. A subclass that overrides forward has to state it again (see
    # MAE.why_all_patches).
    predicts_removed_only = True

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
        self.grid_size = _choose_grid(num_patches, grid_size)
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
        """The normalization layer before the prediction."""
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
            x: (B, 1 + L_visible, encoder's dimension), the encoder's ``latent``.
            ids_restore: (B, L), from the encoder.
            grid: (h, w) of these images if it is not ``grid_size``. The position embedding is
                resized to it.
            removed_only: whether only removed patches are predicted, which is all that the loss
                needs.

        Returns:
            (B, L, predict_feature_dim) in raster order, or with ``removed_only``
            (B, L - L_visible, predict_feature_dim) in the order of ``Masking.ids_removed``.
        """
        grid = grid or self.grid_size
        if ids_restore.shape[1] != grid[0] * grid[1]:
            raise ValueError(
                f'ids_restore is for {ids_restore.shape[1]} patches, but the grid is {grid[0]} x '
                f'{grid[1]}'
            )
        # Attention does not depend on the order of tokens. They stay in the shuffled order (cls,
        # visible, removed), so that the removed ones are one slice at the end.
        pos_embed = resize_pos_embed(self.decoder_pos_embed, self.grid_size, grid)
        positions = pos_embed[0, 1:][invert_permutation(ids_restore)]  # (B, L, D)
        x = self.decoder_embed(x)  # (B, 1 + L_visible, D)
        visible = x.shape[1] - 1
        tokens = [
            x[:, :1] + pos_embed[:, :1],
            x[:, 1:] + positions[:, :visible],
            self.mask_token + positions[:, visible:],
        ]
        x = torch.cat(tokens, dim=1)  # (B, 1 + L, D)

        # The last layer computes only the tokens that are predicted; they attend to all others.
        first = 1 + visible if removed_only else 1
        for block in self.decoder_blocks[:-1]:
            x = checkpoint(block, x, use_reentrant=False) if self.with_cp else block(x)
        x = self.decoder_blocks[-1](x, first) if self.decoder_blocks else x[:, first:]

        x = self.decoder_pred(self.decoder_norm(x))
        return x if removed_only else take_tokens(x, ids_restore)


class DecoderLayer(TransformerEncoderLayer):
    """mmpretrain's encoder layer, which can also compute only the last tokens of a sequence."""

    def forward(self, x: Tensor, first_query: int = 0) -> Tensor:
        """Attends to all tokens and returns those from ``first_query`` on.

        Args:
            x: (B, N, D).
            first_query: index of the first token to compute.

        Returns:
            (B, N - first_query, D).
        """
        if first_query == 0:
            return super().forward(x)
        attn = self.attn
        dim = attn.embed_dims
        normed = self.ln1(x)
        # Queries of the last tokens alone, keys and values of all.
        weight, bias = attn.qkv.weight, attn.qkv.bias  # (3 * D, D), (3 * D,)
        query_bias, other_bias = (None, None) if bias is None else (bias[:dim], bias[dim:])
        queries = nn.functional.linear(normed[:, first_query:], weight[:dim], query_bias)
        keys_values = nn.functional.linear(normed, weight[dim:], other_bias)  # (B, N, 2 * D)
        keys, values = keys_values.chunk(2, dim=-1)
        mixed = attn.scaled_dot_product_attention(
            self._split_heads(queries),
            self._split_heads(keys),
            self._split_heads(values),
            dropout_p=attn.attn_drop if self.training else 0.0,
        )  # (B, heads, N - first_query, head_dims)
        mixed = mixed.transpose(1, 2).flatten(2)  # (B, N - first_query, D)
        mixed = attn.proj_drop(attn.proj(mixed))
        x = x[:, first_query:] + attn.out_drop(attn.gamma1(mixed))
        return self.ffn(self.ln2(x), identity=x)

    def _split_heads(self, x: Tensor) -> Tensor:
        """(B, N, heads * head_dims) -> (B, heads, N, head_dims)."""
        return x.unflatten(-1, (self.attn.num_heads, self.attn.head_dims)).transpose(1, 2)


def _adapt_weights(
    decoder: MAEPretrainDecoder, state_dict: dict, prefix: str, local_metadata: dict, *_: object
) -> None:
    """Adapts weights to the decoder's grid and channels before they are loaded."""
    adapt_on_load(state_dict, decoder.wanted_weights(prefix), local_metadata)


def _choose_grid(num_patches: int | None, grid_size: tuple[int, int] | None) -> tuple[int, int]:
    """Returns the rows and columns of patches for the arguments of the decoder."""
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
