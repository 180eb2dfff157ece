"""The architecture of a model, read from the shapes of its weights."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from ..models.grids import source_grid

# Numbers of heads by width in the released models. The weights are the same for every number.
_HEADS = {192: 3, 384: 6, 768: 12, 1024: 16, 1280: 16}
_DECODER_HEADS = {512: 16}


@dataclass(frozen=True)
class Sizes:
    """Sizes of a model; those of decoder and classifier are 0 without one."""

    embed_dims: int
    num_layers: int
    feedforward_channels: int
    patch_size: tuple[int, int]
    in_channels: int
    grid: tuple[int, int]
    num_classes: int
    decoder_dims: int
    decoder_layers: int
    decoder_feedforward: int

    @property
    def img_size(self) -> tuple[int, int]:
        """Height and width of the usual image in pixels."""
        return self.grid[0] * self.patch_size[0], self.grid[1] * self.patch_size[1]


def sizes_of(state_dict: dict[str, Tensor], grid: tuple[int, int] | None = None) -> Sizes:
    """Returns the sizes of the model that weights in mmpretrain's layout are for.

    Args:
        state_dict: the weights, ``backbone.`` first.
        grid: rows and columns of patches; square if None.

    Raises:
        ValueError: if the weights are not for the ``grid``, or their number of patches is not a
            square and no ``grid`` is given.
    """
    patches = state_dict['backbone.pos_embed'].shape[1] - 1
    if grid is not None and grid[0] * grid[1] != patches:
        raise ValueError(
            f'the weights are for {patches} patches, which are no grid of {grid[0]} x {grid[1]}'
        )

    def rows(key: str) -> int:
        return len(state_dict.get(key, ()))

    def layers(prefix: str) -> int:
        return sum(key.startswith(prefix) and key.endswith('ln1.bias') for key in state_dict)

    dims, channels, *patch_size = state_dict['backbone.patch_embed.projection.weight'].shape
    return Sizes(
        embed_dims=dims,
        num_layers=layers('backbone.layers.'),
        feedforward_channels=rows('backbone.layers.0.ffn.layers.0.0.bias'),
        patch_size=tuple(patch_size),
        in_channels=channels,
        grid=source_grid(patches, stored=grid),
        num_classes=rows('head.fc.bias') or rows('head.layers.head.bias'),
        decoder_dims=rows('neck.decoder_embed.bias'),
        decoder_layers=layers('neck.decoder_blocks.'),
        decoder_feedforward=rows('neck.decoder_blocks.0.ffn.layers.0.0.bias'),
    )


def choose_num_heads(
    width: int, num_heads: int | None, stored: int | None, decoder: bool = False
) -> int:
    """Returns the number of attention heads into which a width is divided.

    Args:
        width: dimension of the tokens.
        num_heads: the number that the user gives, if any.
        stored: the number that is stored in the checkpoint, if any.
        decoder: whether to return the decoder's heads instead of the encoder's.

    Raises:
        ValueError: if the number is neither given, stored nor known for this width, or does not
            divide it.
    """
    heads = num_heads or stored or (_DECODER_HEADS if decoder else _HEADS).get(width)
    argument = 'decoder_num_heads=N' if decoder else 'num_heads=N'
    if heads is None:
        raise ValueError(
            f'the number of heads into which a width of {width} is divided is not stored with the '
            f'weights; name {argument}'
        )
    if heads < 1 or width % heads:
        raise ValueError(
            f'a width of {width} cannot be divided into {heads} heads; name the right {argument}'
        )
    return heads
