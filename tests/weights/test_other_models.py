"""Models of other packages load weights through mmengine as without this plugin."""

import pytest
import torch
from mae_plugin.weights.layouts import detect
from mmengine.model import BaseModule
from mmengine.runner import load_checkpoint
from torch import nn

from .test_layouts import assert_identical

pytestmark = pytest.mark.openmmlab_only

SIZES = dict(img_size=32, patch_size=8, embed_dim=16, depth=2, num_heads=2)


def timm_vit() -> nn.Module:
    import timm

    return timm.models.VisionTransformer(**SIZES, num_classes=3)


def hf_vit() -> nn.Module:
    import transformers

    config = transformers.ViTConfig(
        image_size=32,
        patch_size=8,
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=64,
    )
    return transformers.ViTModel(config, add_pooling_layer=False)


class Segmentor(BaseModule):
    """A model of mmsegmentation or mmdetection, whose ``backbone`` has the authors' names."""

    def __init__(self, init_cfg: dict | None = None) -> None:
        super().__init__(init_cfg)
        self.backbone = timm_vit()
        self.decode_head = nn.Linear(16, 2)


class Encoder(BaseModule):
    """A backbone with timm's names that mmengine initializes."""

    def __init__(self, init_cfg: dict | None = None) -> None:
        super().__init__(init_cfg)
        for name, part in timm_vit().named_children():
            self.add_module(name, part)


def redraw(model: nn.Module) -> nn.Module:
    for value in model.parameters():
        nn.init.normal_(value)
    return model


@pytest.mark.parametrize('build', [timm_vit, hf_vit, Segmentor])
@pytest.mark.parametrize('wrapped', [False, True])
def test_load_checkpoint(tmp_path, build, wrapped):
    """Formerly every load through mmengine renamed such weights, and none of them was used."""
    source = redraw(build())
    state = source.state_dict()
    if build is not Segmentor:
        assert detect(state).layout != 'mmpretrain'
    torch.save(dict(model=state, state_dict=state) if wrapped else state, tmp_path / 'w.pth')
    model = build()
    load_checkpoint(model, str(tmp_path / 'w.pth'), strict=True)
    assert_identical(model.state_dict(), state)


def test_the_official_weights_in_a_segmentor(tmp_path):
    """The backbone's ``init_cfg`` loads them, with and without a prefix."""
    state = redraw(timm_vit()).state_dict()
    state = {
        key: value
        for key, value in state.items()
        if key.partition('.')[0] in ('patch_embed', 'blocks', 'norm')
    }
    vit = {**timm_vit().state_dict(), **state}
    torch.save(vit, tmp_path / 'bare.pth')
    torch.save({f'backbone.{key}': value for key, value in vit.items()}, tmp_path / 'prefixed.pth')
    for file, prefix in (('bare.pth', None), ('prefixed.pth', 'backbone.')):
        model = Encoder(dict(type='Pretrained', checkpoint=str(tmp_path / file), prefix=prefix))
        model.init_weights()
        loaded = model.state_dict()
        for key, value in state.items():
            assert torch.equal(loaded[key], value), key
