"""Training steps of MAE in several implementations, from uint8 images to updated weights."""

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
    """Sizes of an encoder. The decoder is always that of the paper, 8 blocks of width 512."""

    name: str
    width: int
    depth: int
    heads: int
    patch: int

    @property
    def mmpretrain(self) -> dict:
        """Returns the sizes in the form of mmpretrain's argument ``arch``."""
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
    """Builds the model of this plugin."""
    config = Config.fromfile(CONFIGS / '_base_' / 'mae_vit-base-p16.py').model
    config.backbone.update(arch=arch.mmpretrain, patch_size=arch.patch, img_size=img_size)
    config.pop('data_preprocessor')
    return MODELS.build(config)


class MaskTokensInEncoder(nn.Module):
    """Ablation of the paper (table 1c): the encoder processes mask tokens, and so every patch."""

    def __init__(self, arch: Arch) -> None:
        super().__init__()
        self.mae = ours(arch)
        self.encoder_mask_token = nn.Parameter(torch.zeros(1, 1, arch.width))

    def loss(self, images: Tensor) -> dict[str, Tensor]:
        """Computes the loss on removed patches."""
        encoder, decoder = self.mae.backbone, self.mae.neck
        masking = encoder.make_masking(images)
        # (B, L, D), with the mask token in place of removed patches.
        tokens = torch.where(
            masking.mask[..., None].bool(), self.encoder_mask_token, encoder.patch_embed(images)[0]
        )
        cls_token = encoder.cls_token.expand(len(images), -1, -1)
        x = torch.cat([cls_token, tokens], dim=1) + encoder.pos_embed  # (B, 1 + L, D)
        for layer in encoder.layers:
            x = layer(x)
        x = decoder.decoder_embed(encoder.ln1(x)) + decoder.decoder_pos_embed
        for block in decoder.decoder_blocks:
            x = block(x)
        pred = decoder.decoder_pred(decoder.decoder_norm(x)[:, 1:])
        return dict(loss=self.mae.head.loss(pred, images, masking.mask))


def mmpretrain_mae(arch: Arch) -> nn.Module:
    """Builds the model from mmpretrain's own classes."""
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
    """``ViTMAEForPreTraining`` of ``transformers``."""

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
        """Computes the loss of the wrapped model."""
        return dict(loss=self.model(images).loss)


class Lightly(nn.Module):
    """Modules of ``lightly`` over timm's ViT, composed as in the documentation of ``lightly``."""

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
        """Computes the mean squared error of normalized removed patches."""
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
class Implementation:
    """One implementation with its optimizer."""

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
        """Compiles the loss: of this plugin by ``MAE.compile``, of the others as a whole."""
        if isinstance(self.model, mae_plugin.MAE):
            self.model.compile(mode='reduce-overhead' if self.name == GRAPHS else None)
        else:
            self.loss = torch.compile(self.model.loss, dynamic=False)

    def forward(self, images: Tensor) -> Tensor:
        """Computes the loss of uint8 images (B, 3, H, W)."""
        inputs = (images.float() - self.mean) / self.std
        kind = images.device.type
        with nullcontext() if self.dtype is None else torch.autocast(kind, self.dtype):
            # mmpretrain requires the argument for annotations, which MAE does not use.
            if isinstance(self.model, mmpretrain_models.MAE):
                return self.loss(inputs, [])['loss']
            return self.loss(inputs)['loss']

    def step(self, images: Tensor) -> None:
        """Runs one training step."""
        loss = self.forward(images)
        if self.scaler is None:
            loss.backward()
            self.optimizer.step()
        else:
            self.scaler.scale(loss).backward()
            self.scaler.step(self.optimizer)
            self.scaler.update()
        self.optimizer.zero_grad()


# mae_plugin with the CUDA graphs of torch.compile.
GRAPHS = 'mae_plugin, CUDA graphs'

# (model, tuned): tuned implementations use merged groups, fused AdamW and, on a GPU, compilation.
IMPLEMENTATIONS: dict[str, tuple[Callable[[Arch], nn.Module], bool]] = {
    'mae_plugin': (ours, True),
    GRAPHS: (ours, True),
    'mmpretrain': (mmpretrain_mae, False),
    'mmpretrain, tuned': (mmpretrain_mae, True),
    'transformers': (HuggingFace, False),
    'transformers, tuned': (HuggingFace, True),
    'lightly': (Lightly, False),
    'lightly, tuned': (Lightly, True),
    'mae_plugin, mask tokens in the encoder': (MaskTokensInEncoder, True),
}


def build(
    name: str, arch: Arch, device: torch.device, compile_tuned: bool, **sizes: int
) -> Implementation:
    """Builds an implementation as shipped, or tuned.

    Tuned means fused AdamW with merged parameter groups, and on a GPU bfloat16 and
    ``torch.compile``.

    Raises:
        ImportError: if the library of the implementation is not installed.
    """
    init_default_scope('mmpretrain')
    MMLogger.get_current_instance().setLevel('ERROR')
    kind, tuned = IMPLEMENTATIONS[name]
    torch.manual_seed(0)
    model = kind(arch, **sizes).to(device).train()
    config = copy.deepcopy(Config.fromfile(CONFIGS / '_base_' / 'pretrain_in1k.py').optim_wrapper)
    config.update(type='OptimWrapper')
    dtype = scaler = None
    if not tuned:
        config.optimizer.pop('fused')
        config.constructor = 'DefaultOptimWrapperConstructor'
    if device.type == 'cuda':
        # mmpretrain's recipe uses float16 with a loss scaler; the others do not fix a precision.
        as_shipped = name == 'mmpretrain'
        dtype = torch.float16 if as_shipped else torch.bfloat16
        scaler = torch.amp.GradScaler('cuda') if as_shipped else None
    optimizer = build_optim_wrapper(model, config).optimizer
    implementation = Implementation(name, model, optimizer, dtype, scaler)
    if tuned and compile_tuned:
        implementation.compile()
    return implementation
