"""The authors' weight initialization, shared by encoder and decoder."""

from __future__ import annotations

from mmpretrain.models.backbones.vision_transformer import TransformerEncoderLayer
from torch import nn


def initialize_as_official(module: nn.Module) -> None:
    """Initializes weights in place as the authors' released code does.

    Linear layers and the flattened patch projection are Xavier-uniform with zero bias (the
    projection keeps torch's own bias), LayerNorm is ones and zeros, cls and mask token are normal
    with standard deviation 0.02.
    """
    for name, parameter in module.named_parameters(recurse=False):
        if name in ('cls_token', 'mask_token'):
            nn.init.normal_(parameter, std=0.02)
    for name, child in module.named_modules():
        if isinstance(child, nn.Linear):
            nn.init.xavier_uniform_(child.weight)
            if child.bias is not None:
                nn.init.zeros_(child.bias)
        elif isinstance(child, nn.LayerNorm):
            nn.init.ones_(child.weight)
            nn.init.zeros_(child.bias)
        elif name == 'patch_embed.projection':
            # Like a linear layer on flattened patches, (D, C * ph * pw).
            nn.init.xavier_uniform_(child.weight.view(len(child.weight), -1))
        if isinstance(child, TransformerEncoderLayer):
            # init_weights() of the whole model would initialize the biases of mmpretrain's layers
            # again.
            child.is_init = child.init_cfg is None
