"""The forward pass of a pre-training step runs on the device alone, without waiting for it.

torch's FakeTensorMode computes shapes and devices of CUDA tensors without a GPU, and raises an error
where a computation reads a value.
"""

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import torch
from mae_plugin.models import MAEPretrainHead
from mmengine.config import Config
from mmpretrain.models import VisionTransformer
from mmpretrain.registry import MODELS
from mmpretrain.structures import DataSample
from torch._subclasses.fake_tensor import DataDependentOutputException, FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode

from .conftest import ROOT

RECIPES = sorted(
    path
    for folder in ('configs/mae', 'configs/mae/small_data')
    for path in (ROOT / folder).glob('mae_vit-*.py')
)
CUDA = torch.device('cuda', 0)


class OnDevice(TorchDispatchMode):
    """Fails where an operation leaves a tensor with dimensions outside the device."""

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        if function is torch.ops.aten.lift_fresh.default:
            # A list of Python numbers: mmpretrain reverses channels by [2, 1, 0].
            return result
        for tensor in result if isinstance(result, (list, tuple)) else (result,):
            if isinstance(tensor, torch.Tensor) and tensor.ndim:
                assert tensor.device.type == 'cuda', f'{function} gives a tensor on the CPU'
        return result


def small(path: Path, mask_kind: str) -> dict:
    """The recipe's model, with two layers in each half."""
    cfg = Config.fromfile(path)
    model = copy.deepcopy(cfg.model)
    arch = model.backbone.get('arch', 'b')
    if isinstance(arch, str):
        arch = VisionTransformer.arch_zoo[arch]
    model.backbone.arch = {**arch, 'num_layers': 2}
    model.backbone.mask_kind = mask_kind
    model.neck.decoder_depth = 2
    if 'data_preprocessor' not in model:
        model.data_preprocessor = cfg.data_preprocessor
    return model


def to_fake_cuda(model: torch.nn.Module, mode: FakeTensorMode) -> None:
    """Replaces every parameter and buffer by a fake CUDA tensor of the same shape."""
    for module in model.modules():
        for tensors in (module._parameters, module._buffers):
            for name, tensor in tensors.items():
                if tensor is None:
                    continue
                with mode:
                    fake = torch.empty(tensor.shape, dtype=tensor.dtype, device=CUDA)
                if isinstance(tensor, torch.nn.Parameter):
                    fake = torch.nn.Parameter(fake, requires_grad=tensor.requires_grad)
                tensors[name] = fake
    model.data_preprocessor._device = CUDA


@contextmanager
def bfloat16() -> Iterator[None]:
    """Autocast, which ``torch.autocast`` switches off without a GPU."""
    torch.set_autocast_enabled('cuda', True)
    torch.set_autocast_dtype('cuda', torch.bfloat16)
    try:
        yield
    finally:
        torch.set_autocast_enabled('cuda', False)
        torch.clear_autocast_cache()


def run_step(model: torch.nn.Module, size: tuple[int, int]) -> None:
    """Runs preprocessing and loss on a fake batch; torch's backward pass needs a real GPU."""
    mode = FakeTensorMode()
    to_fake_cuda(model, mode)
    with mode:
        images = torch.empty(4, model.backbone.in_channels, *size, dtype=torch.uint8)
        inputs = images.to(CUDA)
        with OnDevice():
            batch = dict(inputs=inputs, data_samples=[DataSample() for _ in range(4)])
            data = model.data_preprocessor(batch, training=True)
            with bfloat16():
                loss, _ = model.parse_losses(model(**data, mode='loss'))
    assert loss.device == CUDA and loss.ndim == 0 and loss.requires_grad


@pytest.mark.parametrize('kind', ['random', 'block', 'grid', 'file'])
@pytest.mark.parametrize('recipe', RECIPES, ids=lambda path: path.stem)
def test_a_step_stays_on_the_device(recipe, kind, tmp_path):
    """A data preprocessor with ``nodata`` waited for the device at every step."""
    cfg = Config.fromfile(recipe)
    size = cfg.model.backbone.get('img_size', 224)
    size = (size, size) if isinstance(size, int) else tuple(size)
    if kind == 'file':
        kind = str(tmp_path / 'mask.npy')
        mask = np.zeros(size, dtype=bool)
        mask[size[0] // 2 :] = True
        np.save(kind, mask)
    run_step(MODELS.build(small(recipe, kind)), size)


def test_a_read_is_noticed(build_tiny, monkeypatch):
    """The check above fails for a loss that reads a value."""
    loss = MAEPretrainHead.loss_of_removed

    def read(self, *args):
        result = loss(self, *args)
        return result if result.item() > 0 else -result

    monkeypatch.setattr(MAEPretrainHead, 'loss_of_removed', read)
    with pytest.raises(DataDependentOutputException):
        run_step(build_tiny(), (32, 32))


def test_a_tensor_on_the_cpu_is_noticed(build_tiny, monkeypatch):
    """The check above fails for an index that is made on the CPU."""
    loss = MAEPretrainHead.loss_of_removed

    def index(self, pred, *args):
        return loss(self, pred[:, torch.arange(pred.shape[1])], *args)

    monkeypatch.setattr(MAEPretrainHead, 'loss_of_removed', index)
    with pytest.raises(AssertionError, match='arange.* gives a tensor on the CPU'):
        run_step(build_tiny(), (32, 32))
