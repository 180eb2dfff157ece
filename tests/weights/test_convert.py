"""Conversion from file to file: every format, other sizes and channels, and refusals."""

import copy
import json
from argparse import Namespace

import pytest
import torch
from mae_plugin.weights.convert import Source, read_source, resize, write_target
from mae_plugin.weights.layouts import Content, detect
from mae_plugin.weights.renaming import from_mmpretrain, to_mmpretrain
from mae_plugin.weights.stored_settings import stored_settings
from mmengine.config import Config
from mmengine.runner import load_checkpoint
from mmpretrain.models.utils import resize_pos_embed
from mmpretrain.registry import MODELS
from safetensors.torch import load_file, save_file

from ..conftest import run, tiny_config
from .models import ARCH, IMAGES, NOISE, build, output, randomized, run_tool
from .test_layouts import assert_identical
from .test_loading import Payload

CONVERT = 'tools/convert_checkpoint.py'
HEADS = ['--num-heads', 2, '--decoder-num-heads', 2]


@pytest.fixture(scope='module')
def model():
    return randomized(build('mmpretrain', 'pre-training'))


@pytest.fixture
def ours(model, tmp_path):
    """A checkpoint of the tiny MAE as a Runner writes it."""
    config = Config(dict(model=tiny_config(backbone=dict(arch=ARCH), head=dict(norm_pix=True))))
    checkpoint = dict(
        state_dict=model.state_dict(),
        meta=dict(cfg=config.pretty_text, epoch=3),
        optimizer=dict(a=1),
    )
    torch.save(checkpoint, tmp_path / 'ours.pth')
    return tmp_path / 'ours.pth'


def source_of(model: torch.nn.Module) -> Source:
    return Source(
        Content('mmpretrain', ''), model.state_dict(), dict(num_heads=2, decoder_num_heads=2)
    )


@pytest.mark.parametrize('layout', ['mmpretrain', 'mae', 'hf'])
@pytest.mark.parametrize('name', ['w.pth', 'w.safetensors', 'folder'])
def test_every_format_there_and_back(model, tmp_path, layout, name):
    if name == 'folder' and layout != 'hf':
        with pytest.raises(ValueError, match='folder ends neither in .pth nor in .safetensors'):
            write_target(source_of(model), tmp_path / name, layout)
        assert not list(tmp_path.iterdir())
        return
    write_target(source_of(model), tmp_path / name, layout)
    read = read_source(str(tmp_path / name))
    assert read.content == (layout, 'pre-training')
    assert_identical(read.state_dict, model.state_dict())
    assert [path.name for path in tmp_path.iterdir()] == [name]


def test_a_checkpoint_of_the_authors_training_code(model, tmp_path, capsys):
    """Optimizer, scaler and a Namespace are read safely and left out, with a log line."""
    args = Namespace(norm_pix_loss=True, lr=1e-3, output_dir='out', dist_url='env://')
    saved = dict(
        model=from_mmpretrain(model.state_dict(), 'mae'),
        optimizer=dict(a=1),
        epoch=3,
        scaler=dict(a=1),
        args=args,
    )
    torch.save(saved, tmp_path / 'checkpoint-3.pth')
    out = run_tool(
        capsys, CONVERT, tmp_path / 'checkpoint-3.pth', tmp_path / 'hf', '--to', 'hf', *HEADS
    )
    assert 'layout mae, pre-training' in out
    assert json.loads((tmp_path / 'hf' / 'config.json').read_text())['norm_pix_loss'] is True
    assert stored_settings(saved) == dict(norm_pix=True)
    out = run(CONVERT, tmp_path / 'checkpoint-3.pth', tmp_path / 'o.pth', '--to', 'mmpretrain')
    assert (
        'Only the weights are converted, not args, epoch, optimizer, scaler.'
        in out.stdout + out.stderr
    )
    assert out.stdout.splitlines()[-6:-3] == [
        f'source      {tmp_path}/checkpoint-3.pth, layout mae, pre-training',
        f'target      {tmp_path}/o.pth, layout mmpretrain',
        'tensors     74',
    ]
    assert_identical(
        torch.load(tmp_path / 'o.pth', weights_only=True)['state_dict'], model.state_dict()
    )


def test_settings_in_a_runner_checkpoint(ours, tmp_path, capsys):
    """Settings that weights do not show come from the stored config, which is not run."""
    run_tool(capsys, CONVERT, ours, tmp_path / 'hf', '--to', 'hf')
    config = json.loads((tmp_path / 'hf' / 'config.json').read_text())
    names = (
        'num_attention_heads',
        'decoder_num_attention_heads',
        'norm_pix_loss',
        'layer_norm_eps',
        'image_size',
    )
    assert [config[name] for name in names] == [2, 2, True, 1e-6, 32]
    text = (
        "model = dict(backbone=dict(arch='deit-tiny'), neck=dict(decoder_num_heads=4))\n"
        'other = dict(num_heads=9)'
    )
    assert stored_settings(dict(meta=dict(cfg=text))) == dict(num_heads=3, decoder_num_heads=4)
    touched = tmp_path / 'touched'
    text = f'model = dict(arch=open({str(touched)!r}, "w"), decoder_num_heads=8)'
    assert stored_settings(dict(meta=dict(cfg=text))) == dict(decoder_num_heads=8)
    assert not touched.exists()
    assert stored_settings(dict(meta=dict(cfg='model = dict('))) == {}


@pytest.mark.openmmlab_only
@pytest.mark.parametrize('kind', ['pre-training', 'class-token classifier'])
def test_from_pretrained_opens_the_folder(kind, tmp_path, capsys):
    """It opens with the config and preprocessor that the tool wrote, without a network."""
    from transformers import (
        AutoImageProcessor,
        AutoModelForImageClassification,
        AutoModelForPreTraining,
    )

    source = randomized(build('mmpretrain', kind))
    torch.save(source.state_dict(), tmp_path / 'ours.pth')
    run_tool(capsys, CONVERT, tmp_path / 'ours.pth', tmp_path / 'hf', '--to', 'hf', *HEADS)
    opener = AutoModelForPreTraining if kind == 'pre-training' else AutoModelForImageClassification
    opened, report = opener.from_pretrained(tmp_path / 'hf', output_loading_info=True)
    assert not any(report.values()), report
    expected = output(source, 'mmpretrain', kind)
    torch.testing.assert_close(output(opened.eval(), 'hf', kind), expected, rtol=1e-5, atol=1e-5)
    processor = AutoImageProcessor.from_pretrained(tmp_path / 'hf')
    image = torch.full((3, 32, 32), 128, dtype=torch.uint8)
    # (128 - 123.675) / 58.395 and so on, as the recipes normalize.
    expected = [(128 - m) / s for m, s in ((123.675, 58.395), (116.28, 57.12), (103.53, 57.375))]
    assert processor(image, return_tensors='pt').pixel_values[0, :, 5, 5].tolist() == pytest.approx(
        expected, abs=1e-5
    )


@pytest.mark.openmmlab_only
def test_rectangles_in_a_folder(tmp_path, capsys):
    from transformers import AutoModel

    source = randomized(build('mmpretrain', 'encoder'))
    torch.save(source.state_dict(), tmp_path / 'ours.pth')
    options = ['--to', 'hf', '--num-heads', 2, '--img-size', 32, 48]
    run_tool(capsys, CONVERT, tmp_path / 'ours.pth', tmp_path / 'hf', *options)
    images = torch.randn(2, 3, 32, 48, generator=torch.Generator().manual_seed(4))
    with torch.inference_mode():
        tokens = AutoModel.from_pretrained(tmp_path / 'hf').eval()(images).last_hidden_state
        torch.testing.assert_close(tokens, source(images)[0], rtol=1e-5, atol=1e-5)


@pytest.mark.openmmlab_only
@pytest.mark.parametrize('options', [{}, dict(max_shard_size='20KB')])
def test_folders_as_save_pretrained_writes_them(options, tmp_path, capsys):
    source = randomized(build('hf', 'pre-training'))
    source.save_pretrained(tmp_path / 'hf', **options)
    assert (tmp_path / 'hf' / 'model.safetensors.index.json').exists() == bool(options)
    run_tool(capsys, CONVERT, tmp_path / 'hf', tmp_path / 'ours.pth', '--to', 'mmpretrain')
    weights = torch.load(tmp_path / 'ours.pth', weights_only=True)['state_dict']
    assert_identical(weights, to_mmpretrain(source.state_dict()))


def test_older_folders(model, tmp_path):
    """pytorch_model.bin is read, whole and in shards; an index cannot point out of its folder."""
    weights = from_mmpretrain(model.state_dict(), 'hf')
    torch.save(weights, tmp_path / 'pytorch_model.bin')
    assert_identical(read_source(str(tmp_path)).state_dict, model.state_dict())
    shards = tmp_path / 'shards'
    shards.mkdir()
    for i in range(2):
        torch.save(dict(list(weights.items())[i::2]), shards / f'{i}.bin')
    index = {key: f'{i % 2}.bin' for i, key in enumerate(weights)}
    (shards / 'pytorch_model.bin.index.json').write_text(json.dumps(dict(weight_map=index)))
    assert_identical(read_source(str(shards)).state_dict, model.state_dict())
    index = dict.fromkeys(weights, '../pytorch_model.bin')
    (shards / 'pytorch_model.bin.index.json').write_text(json.dumps(dict(weight_map=index)))
    with pytest.raises(FileNotFoundError, match='shards/pytorch_model.bin'):
        read_source(str(shards))
    (tmp_path / 'config.json').write_text('{"model_type": "vi')
    with pytest.raises(
        ValueError, match=r'config\.json is not a readable JSON file, or incomplete'
    ):
        read_source(str(tmp_path))
    with pytest.raises(
        FileNotFoundError, match=r'holds neither model\.safetensors nor pytorch_model\.bin'
    ):
        read_source(str(tmp_path.parent))


@pytest.mark.parametrize('size', [[48], [48, 64]])
def test_another_image_size(ours, model, tmp_path, capsys, size):
    """A model of that size with resized weights equals the old model, which resizes per step."""
    run_tool(capsys, CONVERT, ours, tmp_path / 'new.pth', '--to', 'mmpretrain', '--img-size', *size)
    height, width = size[0], size[-1]
    weights = torch.load(tmp_path / 'new.pth', weights_only=True)['state_dict']
    twin = MODELS.build(
        tiny_config(backbone=dict(arch=ARCH, img_size=(height, width)), head=dict(norm_pix=False))
    )
    twin.load_state_dict(weights, strict=True)
    images = torch.randn(2, 3, height, width, generator=torch.Generator().manual_seed(4))
    noise = torch.rand(2, height * width // 64, generator=torch.Generator().manual_seed(5))
    torch.testing.assert_close(
        twin.loss(images, noise=noise)['loss'], model.loss(images, noise=noise)['loss']
    )
    # The file notes its grid. Where that is lost and the grid is not square, it has to be given.
    options = ['--to', 'mmpretrain', '--img-size', 32]
    assert '32 x 32, 3 channels' in run_tool(
        capsys, CONVERT, tmp_path / 'new.pth', tmp_path / 'back.pth', *options
    )
    torch.save(dict(weights), tmp_path / 'bare.pth')
    if height != width:
        messages = run_tool(
            capsys, CONVERT, tmp_path / 'bare.pth', tmp_path / 'again.pth', *options, fails=True
        )
        assert (
            'the weights are for 48 patches, which is not a square number; name their --src-grid '
            'ROWS COLUMNS' in messages
        )
        options += ['--src-grid', 6, 8]
    run_tool(capsys, CONVERT, tmp_path / 'bare.pth', tmp_path / 'again.pth', *options)
    back, again = (
        torch.load(tmp_path / f'{name}.pth', weights_only=True)['state_dict']
        for name in ('back', 'again')
    )
    assert_identical(back, again)


@pytest.mark.parametrize('layout', ['mmpretrain', 'hf'])
def test_a_grid_that_could_be_a_square(layout, tmp_path):
    """A file and a folder note that 16 patches are 2 x 8, not 4 x 4."""
    model = randomized(build('mmpretrain', 'encoder'))
    source = Source(Content('mmpretrain', ''), to_mmpretrain(model.state_dict()), dict(num_heads=2))
    resize(source, img_size=(16, 64))
    path = tmp_path / ('w.pth' if layout == 'mmpretrain' else 'folder')
    write_target(source, path, layout)
    read = read_source(str(path))
    assert read.grid == (2, 8)
    resize(read, img_size=(64, 16))
    expected = resize_pos_embed(source.state_dict['backbone.pos_embed'], (2, 8), (8, 2))
    assert torch.equal(read.state_dict['backbone.pos_embed'], expected)


def test_settings_of_a_config_beyond_the_weights(model, tmp_path, monkeypatch):
    """Another activation is refused and another epsilon logged, in converting and loading."""
    messages = []
    monkeypatch.setattr(
        'mae_plugin.weights.hugging_face.print_log', lambda line, logger: messages.append(line)
    )
    write_target(source_of(model), tmp_path / 'hf', 'hf')
    file = tmp_path / 'hf' / 'config.json'
    config = json.loads(file.read_text())
    for read in (read_source, lambda folder: load_checkpoint(copy.deepcopy(model), folder)):
        file.write_text(json.dumps(config | dict(layer_norm_eps=1e-12)))
        read(str(file.parent))
        assert (
            messages.pop()
            == 'The config has layer_norm_eps=1e-12, which is not stored with weights; '
            'models of the other layouts use 1e-06.'
        )
        file.write_text(json.dumps(config | dict(hidden_act='quick_gelu')))
        with pytest.raises(
            ValueError,
            match="hidden_act='quick_gelu', but models of the other layouts compute gelu",
        ):
            read(str(file.parent))
    assert not messages


def test_another_number_of_channels(model):
    """Images of repeated channels keep their tokens and predictions, and so do gray ones."""
    source = source_of(model)
    resize(source, in_channels=6)
    twin = MODELS.build(
        tiny_config(backbone=dict(arch=ARCH, in_channels=6), head=dict(norm_pix=False))
    )
    twin.load_state_dict(source.state_dict, strict=True)
    twin.eval()
    doubled = torch.cat([IMAGES, IMAGES], dim=1)
    with torch.inference_mode():
        torch.testing.assert_close(
            twin.extract_feat(doubled)[0], model.extract_feat(IMAGES)[0], rtol=1e-5, atol=1e-5
        )
        new, old = (m.reconstruct(x, noise=NOISE)[0] for m, x in ((twin, doubled), (model, IMAGES)))
        torch.testing.assert_close(new, torch.cat([old, old], dim=1), rtol=1e-5, atol=1e-5)
    resize(source, in_channels=3)
    assert_identical(source.state_dict, model.state_dict())
    resize(source, in_channels=1)
    key = 'backbone.patch_embed.projection.weight'
    torch.testing.assert_close(source.state_dict[key][:, 0], model.state_dict()[key].sum(dim=1))
    assert len(source.state_dict['neck.decoder_pred.bias']) == 64
    with pytest.raises(ValueError, match='1 channel or more, not in_channels=0'):
        resize(source, in_channels=0)


def test_nothing_is_overwritten(ours, tmp_path, capsys):
    target = tmp_path / 'target.safetensors'
    target.write_bytes(b'precious')
    messages = run_tool(capsys, CONVERT, ours, target, '--to', 'mae', fails=True)
    assert f'{target} exists already; name another place, or overwrite it with --force' in messages
    assert target.read_bytes() == b'precious'
    run_tool(capsys, CONVERT, ours, target, '--to', 'mae', '--force')
    assert detect(load_file(target)) == ('mae', 'pre-training')
    (tmp_path / 'hf').mkdir()
    assert 'hf exists already' in run_tool(
        capsys, CONVERT, ours, tmp_path / 'hf', '--to', 'hf', fails=True
    )
    run_tool(capsys, CONVERT, ours, tmp_path / 'hf', '--to', 'hf', '--force')
    assert {path.name for path in (tmp_path / 'hf').iterdir()} == {
        'model.safetensors', 'config.json', 'preprocessor_config.json'
    }  # fmt: skip
    assert {path.name for path in tmp_path.iterdir()} == {'ours.pth', 'target.safetensors', 'hf'}


@pytest.mark.parametrize(
    ('content', 'arguments', 'message'),
    [
        (
            'ours',
            ['o.pth', '--to', 'mmpretrain', '--img-size', '44'],
            'patches of (8, 8) pixels do not tile',
        ),
        (
            'ours',
            ['o.pth', '--to', 'mmpretrain', '--img-size', '32', '--src-grid', '2', '9'],
            'are no grid of 2 x 9',
        ),
        (
            'ours',
            ['o.pth', '--to', 'mae', '--img-size', '1', '2', '3'],
            '--img-size takes a height and a width',
        ),
        (
            'ours',
            ['o.pth', '--to', 'mae', '--in-channels', '0'],
            '--in-channels: 0 is no whole number of at least 1',
        ),
        ('ours', ['o.bin', '--to', 'mae'], 'o.bin ends neither in .pth nor in .safetensors'),
        (
            'ours',
            ['o', '--to', 'hf', '--num-heads', '5'],
            'a width of 32 cannot be divided into 5 heads',
        ),
        (
            'ours',
            ['o', '--to', 'hf', '--img-size', '32', '64'],
            'ViTMAE square images, not (32, 64)',
        ),
        (
            'bare',
            ['o', '--to', 'hf'],
            'which a width of 32 is divided is not stored with the weights; name --num-heads N',
        ),
        (
            'bare',
            ['o', '--to', 'hf', '--num-heads', '2'],
            'width of 16 is divided is not stored with the weights; name --decoder-num-heads N',
        ),
        (
            'pooled',
            ['o', '--to', 'hf'],
            'layout hf has no place for these weights (mean-pooled classifier)',
        ),
        ('malicious', ['o.pth', '--to', 'mae'], 'a type that no checkpoint needs'),
        (
            'truncated.pth',
            ['o.pth', '--to', 'mae'],
            'is not a readable checkpoint, or incomplete',
        ),
        ('truncated.safetensors', ['o.pth', '--to', 'mae'], 'is not a readable checkpoint'),
        (
            'resnet',
            ['o.pth', '--to', 'mae'],
            'in none of the layouts mmpretrain, mae, timm, hf: they hold',
        ),
        ('nothing', ['o.pth', '--to', 'mae'], 'there is no checkpoint'),
    ],
)
def test_refusals_are_one_line_and_leave_nothing(
    content, arguments, message, ours, model, tmp_path, capsys
):
    file = tmp_path / 'source.pth'
    if content == 'bare':
        torch.save(model.state_dict(), file)
    elif content == 'pooled':
        torch.save(build('mmpretrain', 'mean-pooled classifier').state_dict(), file)
    elif content == 'malicious':
        torch.save(dict(model=Payload(tmp_path / 'touched')), file)
    elif content.startswith('truncated'):
        file = tmp_path / content
        torch.save(model.state_dict(), file) if file.suffix == '.pth' else save_file(
            model.state_dict(), file
        )
        file.write_bytes(file.read_bytes()[:3000])
    elif content == 'resnet':
        torch.save(MODELS.build(dict(type='ResNet', depth=18)).state_dict(), file)
    elif content == 'ours':
        file = ours
    before = set(tmp_path.iterdir())
    messages = run_tool(capsys, CONVERT, file, tmp_path / arguments[0], *arguments[1:], fails=True)
    assert message in messages.splitlines()[-1]
    assert set(tmp_path.iterdir()) == before


def test_files_are_as_readable_as_others(model, tmp_path):
    (tmp_path / 'usual').touch()
    for name in ('w.pth', 'w.safetensors', 'folder'):
        write_target(source_of(model), tmp_path / name, 'hf')
    for file in (tmp_path / 'w.pth', tmp_path / 'w.safetensors', *(tmp_path / 'folder').iterdir()):
        assert file.stat().st_mode == (tmp_path / 'usual').stat().st_mode, file
