"""Tests that merged parameter groups give the same weights as mmengine's groups."""

import copy

import pytest
import torch
from mmengine.config import Config
from mmengine.optim import build_optim_wrapper
from mmengine.registry import init_default_scope
from mmpretrain.registry import MODELS

from ...conftest import FINETUNE, PRETRAIN, ROOT, tiny_config


def classifier() -> torch.nn.Module:
    config = Config.fromfile(ROOT / FINETUNE).model
    arch = dict(embed_dims=32, num_layers=2, num_heads=2, feedforward_channels=64)
    config.backbone.update(arch=arch, img_size=32, patch_size=8, init_cfg=None, drop_path_rate=0.0)
    config.head.update(in_channels=32, num_classes=10)
    torch.manual_seed(0)
    return MODELS.build(dict(config, train_cfg=None))


CASES = {
    # Decay and no decay.
    PRETRAIN: (lambda: MODELS.build(tiny_config()), 'DefaultOptimWrapperConstructor', 2),
    # Two settings each for embedding, two blocks and what comes after them; the embedding has 1-D
    # and other tensors.
    FINETUNE: (classifier, 'LearningRateDecayOptimWrapperConstructor', 8),
}


@pytest.mark.parametrize('config', CASES)
def test_same_weights_after_twenty_steps(config):
    init_default_scope('mmpretrain')
    build, stock, groups = CASES[config]
    ours = build()
    theirs = copy.deepcopy(ours)
    cfg = Config.fromfile(ROOT / config).optim_wrapper
    cfg.optimizer.lr = 1e-3
    merged = build_optim_wrapper(ours, cfg)
    cfg.optimizer.fused = False
    separate = build_optim_wrapper(theirs, dict(cfg, constructor=stock))
    assert len(merged.optimizer.param_groups) == groups < len(separate.optimizer.param_groups)
    settings = {
        id(p): (group['lr'], group['weight_decay'], *group['betas'])
        for wrapper in (merged, separate)
        for group in wrapper.optimizer.param_groups
        for p in group['params']
        if p.requires_grad
    }
    for mine, other in zip(ours.parameters(), theirs.parameters(), strict=True):
        assert settings.get(id(mine)) == settings.get(id(other))
    generator = torch.Generator().manual_seed(1)
    for _ in range(20):
        gradients = [torch.randn(p.shape, generator=generator) for p in ours.parameters()]
        for model, wrapper in ((ours, merged), (theirs, separate)):
            for parameter, gradient in zip(model.parameters(), gradients, strict=True):
                parameter.grad = gradient.clone() if parameter.requires_grad else None
            wrapper.step()
    for (name, mine), other in zip(ours.named_parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(mine, other, rtol=1e-5, atol=1e-7, msg=name)
