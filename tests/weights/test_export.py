"""The encoder alone, as its users load it: dense heads, timm, Hugging Face, ONNX."""

import re
import sys

import pytest
import torch
from mmengine.config import Config
from mmpretrain.registry import MODELS

from ..conftest import ROOT, run
from .models import ARCH, IMAGES, build, load, output, randomized, run_tool

EXPORT = 'tools/export_encoder.py'
LAYOUTS_DOC = (ROOT / 'docs' / 'checkpoints.md').read_text()


@pytest.fixture(scope='module', params=['pre-training', 'class-token linear probe'])
def source(request, tmp_path_factory):
    """A model and the file that holds it."""
    model = randomized(build('mmpretrain', request.param))
    file = tmp_path_factory.mktemp('source') / 'source.pth'
    torch.save(dict(state_dict=model.state_dict(), meta={}), file)
    return model, file


def tokens(model: torch.nn.Module) -> torch.Tensor:
    """Returns the tokens of a model's encoder, from the outputs of its layers."""
    return layer_outputs(model.backbone, [2])[0]


def layer_outputs(backbone: torch.nn.Module, layers: list[int]) -> list[torch.Tensor]:
    """Returns tokens after some layers, as hooks receive them, the last ones normalized."""
    seen = {}
    hooks = [
        layer.register_forward_hook(lambda module, inputs, result, i=i: seen.update({i: result}))
        for i, layer in enumerate(backbone.layers)
    ]
    with torch.inference_mode():
        backbone(IMAGES, mask=None) if hasattr(backbone, 'mask_ratio') else backbone(IMAGES)
        for hook in hooks:
            hook.remove()
        last = len(backbone.layers) - 1
        return [backbone.ln1(seen[i]) if i == last else seen[i] for i in layers]


@pytest.mark.parametrize('backbone', ['VisionTransformer', 'MAEViT'])
def test_feature_maps_for_a_dense_head(source, tmp_path, capsys, backbone):
    model, file = source
    messages = run_tool(capsys, EXPORT, file, tmp_path / 'encoder.pth', '--to', 'mmpretrain')
    assert f'the encoder of {file} (layout mmpretrain, ' in messages
    # The encoder loads strictly into a backbone alone.
    bare = torch.load(tmp_path / 'encoder.pth', weights_only=True)['state_dict']
    load(build('mmpretrain', 'encoder'), bare, 'mmpretrain', tmp_path)
    init_cfg = dict(type='Pretrained', checkpoint=str(tmp_path / 'encoder.pth'))
    sizes = dict(arch=ARCH, img_size=32, patch_size=8, out_type='featmap', out_indices=[0, 1, 2])
    dense = MODELS.build(dict(type=backbone, **sizes, init_cfg=init_cfg))
    dense.init_weights()
    dense.eval()
    with torch.inference_mode():
        maps = dense(IMAGES, mask=None) if backbone == 'MAEViT' else dense(IMAGES)
    for got, expected in zip(maps, layer_outputs(model.backbone, [0, 1, 2]), strict=True):
        assert got.shape == (3, 32, 4, 4)
        grid = expected[:, 1:].transpose(1, 2).unflatten(2, (4, 4))
        torch.testing.assert_close(got, grid, rtol=1e-5, atol=1e-5)


def test_config_in_the_documentation(tmp_path, capsys, monkeypatch):
    """The config works as it is documented, except for a smaller architecture."""
    (snippet,) = re.findall(r'```python\n(custom_imports.*?)```', LAYOUTS_DOC, re.DOTALL)
    config = Config.fromstring(snippet.replace("arch='base'", "arch='deit-tiny'"), '.py')
    model = MODELS.build(dict(type='MAEViT', arch='deit-tiny'))
    torch.save(randomized(model).state_dict(), tmp_path / 'source.pth')
    run_tool(
        capsys, EXPORT, tmp_path / 'source.pth', tmp_path / 'encoder.pth', '--to', 'mmpretrain'
    )
    monkeypatch.chdir(tmp_path)
    backbone = MODELS.build(config.model.backbone)
    backbone.init_weights()
    for key, tensor in model.state_dict().items():
        assert torch.equal(backbone.state_dict()[key], tensor), key
    maps = backbone(torch.rand(1, 3, 224, 224))
    assert [tuple(m.shape) for m in maps] == [(1, 192, 14, 14)] * 4


@pytest.mark.openmmlab_only
@pytest.mark.parametrize('name', ['encoder.pth', 'encoder.safetensors'])
def test_timm(source, tmp_path, capsys, name):
    from timm.models import load_checkpoint

    model, file = source
    run_tool(capsys, EXPORT, file, tmp_path / name, '--to', 'timm')
    twin = build('timm', 'encoder').eval()
    load_checkpoint(twin, str(tmp_path / name), strict=True)
    torch.testing.assert_close(output(twin, 'timm', 'encoder'), tokens(model), rtol=1e-5, atol=1e-5)


@pytest.mark.openmmlab_only
def test_hugging_face(source, tmp_path, capsys):
    from transformers import AutoModel

    model, file = source
    run_tool(capsys, EXPORT, file, tmp_path / 'encoder', '--to', 'hf', '--num-heads', 2)
    opened = AutoModel.from_pretrained(tmp_path / 'encoder').eval()
    assert type(opened).__name__ == 'ViTModel'
    torch.testing.assert_close(output(opened, 'hf', 'encoder'), tokens(model), rtol=1e-5, atol=1e-5)


@pytest.mark.openmmlab_only
def test_onnx(source, tmp_path, capsys):
    """onnxruntime runs the graph on another number of images than at the export."""
    import onnx
    import onnxruntime

    model, file = source
    messages = run_tool(
        capsys, EXPORT, file, tmp_path / 'encoder.onnx', '--to', 'onnx', '--num-heads', 2
    )
    assert float(re.search(r'largest difference from PyTorch: (\S+)', messages)[1]) < 1e-5
    assert [path.name for path in tmp_path.iterdir()] == ['encoder.onnx']
    onnx.checker.check_model(tmp_path / 'encoder.onnx', full_check=True)
    session = onnxruntime.InferenceSession(tmp_path / 'encoder.onnx')
    for images in (IMAGES, IMAGES[:1], torch.cat([IMAGES, IMAGES])):
        (got,) = session.run(None, dict(images=images.numpy()))
        expected = (
            tokens(model)[: len(images)] if len(images) <= 3 else torch.cat([tokens(model)] * 2)
        )
        torch.testing.assert_close(torch.from_numpy(got), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.openmmlab_only
def test_onnx_of_more_than_two_gigabytes(tmp_path, capsys, monkeypatch):
    """The weights go into a second file, here for any size, which overwrites no other file."""
    import onnxruntime

    monkeypatch.setattr('mae_plugin.weights.onnx_export._LARGEST', 0)
    model = randomized(build('mmpretrain', 'pre-training'))
    torch.save(model.state_dict(), tmp_path / 'source.pth')
    export = [
        EXPORT,
        tmp_path / 'source.pth',
        tmp_path / 'e.onnx',
        '--to',
        'onnx',
        '--num-heads',
        2,
    ]
    (tmp_path / 'e.onnx.data').touch()
    assert 'e.onnx.data exists already' in run_tool(capsys, *export, fails=True)
    assert not (tmp_path / 'e.onnx').exists()
    run_tool(capsys, *export, '--force')
    assert (tmp_path / 'e.onnx.data').stat().st_size > 4 * 32 * 32
    (got,) = onnxruntime.InferenceSession(tmp_path / 'e.onnx').run(
        None, dict(images=IMAGES.numpy())
    )
    torch.testing.assert_close(torch.from_numpy(got), tokens(model), rtol=1e-5, atol=1e-5)


@pytest.mark.openmmlab_only
def test_wrong_onnx_is_not_written(source, tmp_path, capsys, monkeypatch):
    """A graph that differs from PyTorch is refused and removed."""
    monkeypatch.setattr('mae_plugin.weights.onnx_export._TOLERANCE', 1e-12)
    messages = run_tool(
        capsys, EXPORT, source[1], tmp_path / 'e.onnx', '--to', 'onnx', '--num-heads', 2, fails=True
    )
    assert 'the ONNX graph differs from PyTorch by' in messages
    assert not list(tmp_path.iterdir())


def test_refusals(source, tmp_path, capsys, monkeypatch):
    file = source[1]
    messages = run_tool(capsys, EXPORT, file, tmp_path / 'e.onnx', '--to', 'onnx', fails=True)
    assert (
        'which a width of 32 is divided is not stored with the weights; name --num-heads N'
        in messages
    )
    monkeypatch.setitem(sys.modules, 'onnxruntime', None)
    messages = run_tool(
        capsys, EXPORT, file, tmp_path / 'e.onnx', '--to', 'onnx', '--num-heads', 2, fails=True
    )
    assert "ONNX needs onnxruntime: pip install 'mae_plugin[onnx]'" in messages
    (tmp_path / 'e.pth').touch()
    messages = run_tool(capsys, EXPORT, file, tmp_path / 'e.pth', '--to', 'timm', fails=True)
    assert 'e.pth exists already' in messages
    torch.save(build('mmpretrain', 'mean-pooled classifier').state_dict(), tmp_path / 'pooled.pth')
    messages = run_tool(
        capsys, EXPORT, tmp_path / 'pooled.pth', tmp_path / 'e', '--to', 'hf', fails=True
    )
    assert 'layout hf has no place for these weights (mean-pooled encoder)' in messages


def test_as_a_process(tmp_path):
    torch.save(build('mmpretrain', 'encoder').state_dict(), tmp_path / 'bare.pth')
    options = ['--to', 'mmpretrain', '--force', '--src-grid', 4, 4, '--trust-checkpoint']
    done = run(EXPORT, tmp_path / 'bare.pth', tmp_path / 'e.safetensors', *options)
    assert done.stdout.splitlines()[-1].startswith(f'{tmp_path}/e.safetensors: the encoder of')
