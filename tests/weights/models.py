"""Tiny models with random weights, of every layout and kind, from their own code bases."""

from __future__ import annotations

import runpy
import sys
from functools import partial
from pathlib import Path

import pytest
import torch
from mae_plugin.weights.hugging_face import write_folder
from mmpretrain.registry import MODELS
from torch import Tensor, nn

from ..conftest import ROOT, tiny_config

ARCH = dict(embed_dims=32, num_layers=3, num_heads=2, feedforward_channels=64)
IMAGES = torch.randn(3, 3, 32, 32, generator=torch.Generator().manual_seed(1))
NOISE = torch.rand(3, 16, generator=torch.Generator().manual_seed(2))
_NORM = partial(nn.LayerNorm, eps=1e-6)

# Names of the authors' release, written out; N counts layers.
OFFICIAL_ENCODER = """
cls_token pos_embed patch_embed.proj.weight patch_embed.proj.bias
blocks.N.norm1.weight blocks.N.norm1.bias blocks.N.attn.qkv.weight blocks.N.attn.qkv.bias
blocks.N.attn.proj.weight blocks.N.attn.proj.bias blocks.N.norm2.weight blocks.N.norm2.bias
blocks.N.mlp.fc1.weight blocks.N.mlp.fc1.bias blocks.N.mlp.fc2.weight blocks.N.mlp.fc2.bias
"""
OFFICIAL_DECODER = """
mask_token decoder_pos_embed decoder_embed.weight decoder_embed.bias
decoder_blocks.N.norm1.weight decoder_blocks.N.norm1.bias
decoder_blocks.N.attn.qkv.weight decoder_blocks.N.attn.qkv.bias
decoder_blocks.N.attn.proj.weight decoder_blocks.N.attn.proj.bias
decoder_blocks.N.norm2.weight decoder_blocks.N.norm2.bias
decoder_blocks.N.mlp.fc1.weight decoder_blocks.N.mlp.fc1.bias
decoder_blocks.N.mlp.fc2.weight decoder_blocks.N.mlp.fc2.bias
decoder_norm.weight decoder_norm.bias decoder_pred.weight decoder_pred.bias
"""


def official_names(kind: str) -> set[str]:
    """Returns the keys of an official checkpoint of three encoder and two decoder layers."""
    statistics = 'head.0.running_mean head.0.running_var head.0.num_batches_tracked'
    probe = f'{statistics} head.1.weight head.1.bias'
    rest = {
        'pre-training': f'norm.weight norm.bias {OFFICIAL_DECODER}',
        'encoder': 'norm.weight norm.bias',
        'class-token classifier': 'norm.weight norm.bias head.weight head.bias',
        'mean-pooled classifier': 'fc_norm.weight fc_norm.bias head.weight head.bias',
        'class-token linear probe': f'norm.weight norm.bias {probe}',
        'mean-pooled linear probe': f'fc_norm.weight fc_norm.bias {probe}',
        'mean-pooled encoder': 'fc_norm.weight fc_norm.bias',
        'encoder without its last norm': '',
    }[kind]
    return {
        name.replace('.N.', f'.{n}.')
        for name in f'{OFFICIAL_ENCODER} {rest}'.split()
        for n in range(2 if name.startswith('decoder') else 3)
    }


def randomized(model: nn.Module) -> nn.Module:
    """Draws all parameters and statistics, so that no error is hidden by a value of 0 or 1."""
    generator = torch.Generator().manual_seed(3)
    for name, tensor in [*model.named_parameters(), *model.named_buffers()]:
        if tensor.is_floating_point():
            tensor.data += 0.1 * torch.randn(tensor.shape, generator=generator)
        if name.endswith('running_var'):
            tensor.data.abs_().add_(0.1)
        if name.endswith('num_batches_tracked'):
            tensor.fill_(7)
    # Not chained: mmpretrain's backbones return nothing from eval().
    model.eval()
    return model


def build(layout: str, kind: str) -> nn.Module:
    """Builds the model of a kind in the code base of a layout."""
    torch.manual_seed(0)
    return dict(mmpretrain=_mmpretrain, mae=_official, timm=_timm, hf=_hugging_face)[layout](kind)


def output(model: nn.Module, layout: str, kind: str) -> Tensor:
    """Returns loss, logits or tokens of a model on the same images with the same noise."""
    with torch.inference_mode():
        if kind == 'pre-training':
            if layout == 'mmpretrain':
                return model.loss(IMAGES, noise=NOISE)['loss']
            return model(IMAGES, noise=NOISE).loss if layout == 'hf' else model(IMAGES, NOISE)
        if kind == 'encoder':
            if layout == 'hf':
                return model(IMAGES).last_hidden_state
            return model(IMAGES)[0] if layout == 'mmpretrain' else model.forward_features(IMAGES)
        if layout == 'hf':
            return model(IMAGES).logits
        return model(IMAGES, mode='tensor') if layout == 'mmpretrain' else model(IMAGES)


def load(model: nn.Module, weights: dict[str, Tensor], layout: str, folder: Path) -> nn.Module:
    """Loads weights strictly; those with Hugging Face's names by ``from_pretrained``."""
    if layout != 'hf':
        # The backbone of an encoder is a module of its own, without a prefix.
        bare = not hasattr(model, 'backbone') and layout == 'mmpretrain'
        weights = {
            key.removeprefix('backbone.') if bare else key: tensor
            for key, tensor in weights.items()
        }
        model.load_state_dict(weights, strict=True)
        model.eval()
        return model
    write_folder(weights, model.config.to_dict(), folder)
    loaded, report = type(model).from_pretrained(folder, output_loading_info=True)
    assert {name: set(keys) for name, keys in report.items() if keys} in (
        {},
        # ViTModel adds a pooler, which is never trained.
        dict(missing_keys={'pooler.dense.weight', 'pooler.dense.bias'}),
    )
    return loaded.eval()


def _mmpretrain(kind: str) -> nn.Module:
    if kind == 'pre-training':
        return MODELS.build(tiny_config(backbone=dict(arch=ARCH), head=dict(norm_pix=False)))
    pooled = 'mean-pooled' in kind
    out_type = 'avg_featmap' if pooled else 'raw' if 'encoder' in kind else 'cls_token'
    backbone = dict(
        type='VisionTransformer',
        arch=ARCH,
        img_size=32,
        patch_size=8,
        final_norm=not pooled and 'without' not in kind,
        out_type=out_type,
    )
    if 'encoder' in kind:
        return MODELS.build(backbone)
    return MODELS.build(
        dict(
            type='ImageClassifier',
            backbone=backbone,
            neck=dict(type='ClsBatchNormNeck', input_features=32) if 'probe' in kind else None,
            head=dict(
                type='LinearClsHead' if pooled else 'VisionTransformerClsHead',
                num_classes=5,
                in_channels=32,
            ),
        )
    )


def _timm(kind: str) -> nn.Module:
    from timm.models.vision_transformer import VisionTransformer

    return VisionTransformer(
        img_size=32,
        patch_size=8,
        embed_dim=32,
        depth=3,
        num_heads=2,
        mlp_ratio=2,
        norm_layer=_NORM,
        num_classes=0 if 'encoder' in kind else 5,
        global_pool='avg' if 'mean-pooled' in kind else 'token',
    )


def _official(kind: str) -> nn.Module:
    if kind == 'pre-training':
        return OfficialMAE(_timm('encoder'))
    model = _timm(kind)
    if 'probe' in kind:
        model.head = nn.Sequential(nn.BatchNorm1d(32, affine=False, eps=1e-6), model.head)
    return model


class OfficialMAE(nn.Module):
    """MAE from timm's parts under the authors' names, written from the paper."""

    def __init__(self, encoder: nn.Module) -> None:
        from timm.models.vision_transformer import Block

        super().__init__()
        self.cls_token, self.pos_embed = encoder.cls_token, encoder.pos_embed
        self.patch_embed, self.blocks, self.norm = encoder.patch_embed, encoder.blocks, encoder.norm
        self.decoder_embed = nn.Linear(32, 16)
        self.mask_token = nn.Parameter(torch.zeros(1, 1, 16))
        self.decoder_pos_embed = nn.Parameter(torch.randn(1, 17, 16))
        self.decoder_blocks = nn.Sequential(
            *(Block(16, 2, 4, qkv_bias=True, norm_layer=_NORM) for _ in range(2))
        )
        self.decoder_norm = _NORM(16)
        self.decoder_pred = nn.Linear(16, 192)

    def forward(self, images: Tensor, noise: Tensor) -> Tensor:
        patches = self.patch_embed(images) + self.pos_embed[:, 1:]
        # One image at a time, with the visible patches in raster order.
        losses = []
        for image, tokens, ranks in zip(images, patches, noise.argsort(1).argsort(1), strict=True):
            visible = ranks < 4
            x = torch.cat([self.cls_token[0] + self.pos_embed[0, :1], tokens[visible]])[None]
            x = self.decoder_embed(self.norm(self.blocks(x)))[0]
            full = self.mask_token[0].repeat(16, 1)
            full[visible] = x[1:]
            x = torch.cat([x[:1], full])[None] + self.decoder_pos_embed
            pred = self.decoder_pred(self.decoder_norm(self.decoder_blocks(x)))[0, 1:]
            targets = []
            for row in range(4):
                for column in range(4):
                    patch = image[:, 8 * row : 8 * row + 8, 8 * column : 8 * column + 8]
                    targets.append(patch.permute(1, 2, 0).flatten())
            losses.append(((pred - torch.stack(targets)) ** 2).mean(1)[~visible])
        return torch.cat(losses).mean()


def _hugging_face(kind: str) -> nn.Module:
    import transformers as hf

    sizes = dict(
        hidden_size=32,
        num_hidden_layers=3,
        num_attention_heads=2,
        intermediate_size=64,
        image_size=32,
        patch_size=8,
        layer_norm_eps=1e-6,
    )
    if kind == 'pre-training':
        decoder = dict(
            decoder_hidden_size=16,
            decoder_num_hidden_layers=2,
            decoder_num_attention_heads=2,
            decoder_intermediate_size=64,
        )
        return hf.ViTMAEForPreTraining(hf.ViTMAEConfig(**sizes, **decoder))
    if kind == 'encoder':
        return hf.ViTModel(hf.ViTConfig(**sizes))
    return hf.ViTForImageClassification(hf.ViTConfig(**sizes, num_labels=5))


def run_tool(capsys, *arguments: object, fails: bool = False) -> str:
    """Runs a tool in this process, which has imported everything; returns its output or error."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, 'argv', [str(ROOT / arguments[0]), *map(str, arguments[1:])])
        if not fails:
            runpy.run_path(sys.argv[0], run_name='__main__')
            return capsys.readouterr().out
        with pytest.raises(SystemExit) as ended:
            runpy.run_path(sys.argv[0], run_name='__main__')
    assert ended.value.code not in (0, None)
    return ended.value.code if isinstance(ended.value.code, str) else capsys.readouterr().err
