"""MAE's training step in several implementations, each from a batch of uint8 images to updated
weights.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass, field

import mae_plugin
import torch
from mae_plugin.models.patches import patch_statistics
from mmengine.config import Config
from mmengine.logging import MMLogger
from mmengine.optim import build_optim_wrapper
from mmengine.registry import init_default_scope
from mmpretrain import models as mmpretrain_models
from mmpretrain.registry import MODELS
from torch import Tensor, nn

CONFIGS = mae_plugin.registry.asset_root() / 'configs' / 'mae'
MEAN, STD = (123.675, 116.28, 103.53), (58.395, 57.12, 57.375)


@dataclass
class Arch:
    """Sizes of an encoder; the decoder is always the paper's, 8 blocks of 512."""

    name: str
    width: int
    depth: int
    heads: int
    patch: int

    @property
    def mmpretrain(self) -> dict:
        """As mmpretrain's ``arch``."""
        return dict(
            embed_dims=self.width,
            num_layers=self.depth,
            num_heads=self.heads,
            feedforward_channels=4 * self.width,
        )


ARCHS = {
    'tiny': Arch('tiny', 192, 12, 3, 16),
    'b': Arch('ViT-B/16', 768, 12, 12, 16),
    'l': Arch('ViT-L/16', 1024, 24, 16, 16),
    'h': Arch('ViT-H/14', 1280, 32, 16, 14),
}


def ours(arch: Arch, img_size: int = 224) -> nn.Module:
    """This plugin's model."""
    config = Config.fromfile(CONFIGS / '_base_' / 'mae_vit-base-p16.py').model
    config.backbone.update(arch=arch.mmpretrain, patch_size=arch.patch, img_size=img_size)
    config.pop('data_preprocessor')
    return MODELS.build(config)


class MaskTokensInEncoder(nn.Module):
    """The paper's ablation (table 1c): mask tokens go through the encoder, so it works on every
    patch.
    """

    def __init__(self, arch: Arch) -> None:
        super().__init__()
        self.mae = ours(arch)
        self.encoder_mask_token = nn.Parameter(torch.zeros(1, 1, arch.width))

    def loss(self, images: Tensor) -> dict[str, Tensor]:
        """The usual loss on removed patches."""
        encoder, decoder = self.mae.backbone, self.mae.neck
        masking = encoder.make_masking(images)
        tokens = torch.where(
            masking.mask[..., None].bool(), self.encoder_mask_token, encoder.patch_embed(images)[0]
        )
        cls_token = encoder.cls_token.expand(len(images), -1, -1)
        x = torch.cat([cls_token, tokens], dim=1) + encoder.pos_embed
        for layer in encoder.layers:
            x = layer(x)
        x = decoder.decoder_embed(encoder.ln1(x)) + decoder.decoder_pos_embed
        for block in decoder.decoder_blocks:
            x = block(x)
        pred = decoder.decoder_pred(decoder.decoder_norm(x)[:, 1:])
        return dict(loss=self.mae.head.loss(pred, images, masking.mask))


def mmpretrains(arch: Arch) -> nn.Module:
    """mmpretrain's own classes."""
    grid = 224 // arch.patch
    loss = dict(type='PixelReconstructionLoss', criterion='L2')
    return mmpretrain_models.MAE(
        backbone=mmpretrain_models.MAEViT(
            arch=arch.mmpretrain, patch_size=arch.patch, mask_ratio=0.75
        ),
        neck=mmpretrain_models.MAEPretrainDecoder(
            num_patches=grid**2, patch_size=arch.patch, embed_dim=arch.width, decoder_embed_dim=512
        ),
        head=mmpretrain_models.MAEPretrainHead(loss, norm_pix=True, patch_size=arch.patch),
    )


class HuggingFace(nn.Module):
    """``transformers``' ViTMAEForPreTraining."""

    def __init__(self, arch: Arch) -> None:
        super().__init__()
        from transformers import ViTMAEConfig, ViTMAEForPreTraining

        config = ViTMAEConfig(
            hidden_size=arch.width,
            num_hidden_layers=arch.depth,
            num_attention_heads=arch.heads,
            intermediate_size=4 * arch.width,
            patch_size=arch.patch,
            norm_pix_loss=True,
        )
        self.model = ViTMAEForPreTraining(config)

    def loss(self, images: Tensor) -> dict[str, Tensor]:
        """Its loss."""
        return dict(loss=self.model(images).loss)


class Lightly(nn.Module):
    """``lightly``'s modules for MAE over timm's ViT, put together as its documentation does."""

    def __init__(self, arch: Arch) -> None:
        super().__init__()
        from lightly.models import utils
        from lightly.models.modules import MAEDecoderTIMM, MaskedVisionTransformerTIMM
        from timm.models.vision_transformer import VisionTransformer

        vit = VisionTransformer(
            patch_size=arch.patch,
            embed_dim=arch.width,
            depth=arch.depth,
            num_heads=arch.heads,
            num_classes=0,
        )
        self.utils, self.patch = utils, arch.patch
        self.encoder = MaskedVisionTransformerTIMM(vit=vit)
        self.decoder = MAEDecoderTIMM(
            num_patches=vit.patch_embed.num_patches, patch_size=arch.patch, embed_dim=arch.width
        )

    def loss(self, images: Tensor) -> dict[str, Tensor]:
        """Mean squared error of normalised removed patches."""
        utils, length = self.utils, self.encoder.sequence_length
        keep, removed = utils.random_token_mask(
            (len(images), length), mask_ratio=0.75, device=images.device
        )
        visible = self.decoder.embed(self.encoder.encode(images, idx_keep=keep))
        tokens = utils.repeat_token(self.decoder.mask_token, (len(images), length))
        tokens = utils.set_at_index(tokens, keep, visible.type_as(tokens))
        pred = self.decoder.predict(utils.get_at_index(self.decoder.decode(tokens), removed))
        target = utils.get_at_index(utils.patchify(images, self.patch), removed - 1)
        mean, std = patch_statistics(target)
        return dict(loss=(pred - (target - mean) / std).square().mean())


@dataclass
class Side:
    """One implementation with its optimiser, ready to step."""

    name: str
    model: nn.Module
    optimizer: torch.optim.Optimizer
    dtype: torch.dtype | None
    scaler: torch.amp.GradScaler | None = None
    loss: Callable[[Tensor], dict[str, Tensor]] = field(init=False)

    def __post_init__(self) -> None:
        device = next(self.model.parameters()).device
        self.mean, self.std = (
            torch.tensor(values, device=device).view(3, 1, 1) for values in (MEAN, STD)
        )
        self.loss = self.model.loss

    def compile(self) -> None:
        """Compiles the loss: our model by its own method, the others as a whole."""
        if isinstance(self.model, mae_plugin.MAE):
            self.model.compile(mode='reduce-overhead' if self.name == GRAPHS else None)
        else:
            self.loss = torch.compile(self.model.loss, dynamic=False)

    def forward(self, images: Tensor) -> Tensor:
        """uint8 images (B, 3, H, W) to the loss."""
        inputs = (images.float() - self.mean) / self.std
        kind = images.device.type
        with nullcontext() if self.dtype is None else torch.autocast(kind, self.dtype):
            # mmpretrain asks for the annotations that MAE does not use.
            extra = (
                ([],)
                if isinstance(self.model, mmpretrain_models.MAE)
                and not isinstance(self.model, mae_plugin.MAE)
                else ()
            )
            return self.loss(inputs, *extra)['loss']

    def step(self, images: Tensor) -> None:
        """One step of training."""
        loss = self.forward(images)
        if self.scaler is None:
            loss.backward()
            self.optimizer.step()
        else:
            self.scaler.scale(loss).backward()
            self.scaler.step(self.optimizer)
            self.scaler.update()
        self.optimizer.zero_grad()


# As mae_plugin, with torch.compile's CUDA graphs.
GRAPHS = 'mae_plugin, CUDA graphs'

# What each side is: model, whether it is tuned (merged groups, fused AdamW, on a GPU compiled).
SIDES: dict[str, tuple[Callable[[Arch], nn.Module], bool]] = {
    'mae_plugin': (ours, True),
    GRAPHS: (ours, True),
    'mmpretrain': (mmpretrains, False),
    'mmpretrain, tuned': (mmpretrains, True),
    'transformers': (HuggingFace, False),
    'transformers, tuned': (HuggingFace, True),
    'lightly': (Lightly, False),
    'lightly, tuned': (Lightly, True),
    'mae_plugin, mask tokens in the encoder': (MaskTokensInEncoder, True),
}


def build(name: str, arch: Arch, device: torch.device, compile_tuned: bool, **sizes: int) -> Side:
    """Builds a side as its users have it, or tuned: fused AdamW, and on a GPU bfloat16 and
    torch.compile.

    Raises:
        ImportError: if its library is not installed.
    """
    init_default_scope('mmpretrain')
    MMLogger.get_current_instance().setLevel('ERROR')
    kind, tuned = SIDES[name]
    torch.manual_seed(0)
    model = kind(arch, **sizes).to(device).train()
    config = copy.deepcopy(Config.fromfile(CONFIGS / '_base_' / 'pretrain_in1k.py').optim_wrapper)
    config.update(type='OptimWrapper')
    dtype = scaler = None
    if not tuned:
        config.optimizer.pop('fused')
        config.constructor = 'DefaultOptimWrapperConstructor'
    if device.type == 'cuda':
        # mmpretrain's recipe trains in float16 with a scaler; the others' examples leave it open.
        as_shipped = name == 'mmpretrain'
        dtype = torch.float16 if as_shipped else torch.bfloat16
        scaler = torch.amp.GradScaler('cuda') if as_shipped else None
    side = Side(name, model, build_optim_wrapper(model, config).optimizer, dtype, scaler)
    if tuned and compile_tuned:
        side.compile()
    return side
