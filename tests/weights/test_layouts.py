"""Each layout against its own code base: the same outputs, and the same bits back."""

import pytest
import torch
from mae_plugin.weights.layouts import KINDS, detect
from mae_plugin.weights.renaming import from_mmpretrain, to_mmpretrain
from mmpretrain.models.utils import build_2d_sincos_position_embedding
from mmpretrain.registry import MODELS
from torch import Tensor

from .models import IMAGES, NOISE, build, load, official_names, output, randomized

# Which code bases have a model of a kind.
HAVE = {
    'pre-training': ('mmpretrain', 'mae', 'hf'),
    'encoder': ('mmpretrain', 'timm', 'hf'),
    'class-token classifier': ('mmpretrain', 'timm', 'hf'),
    'mean-pooled classifier': ('mmpretrain', 'timm'),
    'class-token linear probe': ('mmpretrain', 'mae'),
}
PAIRS = [(kind, a, b) for kind, layouts in HAVE.items() for a in layouts for b in layouts if a != b]


def assert_identical(weights: dict[str, Tensor], reference: dict[str, Tensor]) -> None:
    assert weights.keys() == reference.keys()
    for key, tensor in reference.items():
        assert torch.equal(weights[key], tensor), key


@pytest.mark.openmmlab_only
@pytest.mark.parametrize(('kind', 'source', 'target'), PAIRS)
def test_same_output_in_the_other_code_base(kind, source, target, tmp_path):
    model = randomized(build(source, kind))
    hub = to_mmpretrain(model.state_dict())
    weights = from_mmpretrain(hub, target)
    twin = load(randomized(build(target, kind)), weights, target, tmp_path / 'hf')
    expected = output(model, source, kind)
    assert 0.1 < expected.abs().mean() < 10
    torch.testing.assert_close(output(twin, target, kind), expected, rtol=1e-5, atol=1e-5)
    # Back from the twin, bit for bit.
    again = to_mmpretrain(twin.state_dict())
    assert_identical(again, hub)
    back = load(
        randomized(build(source, kind)), from_mmpretrain(again, source), source, tmp_path / 'back'
    )
    assert_identical(
        {key: tensor for key, tensor in back.state_dict().items() if 'pooler' not in key},
        {key: tensor for key, tensor in model.state_dict().items() if 'pooler' not in key},
    )


@pytest.mark.openmmlab_only
def test_hugging_faces_mae_encoder(tmp_path):
    """ViTMAEModel, which masks as it encodes, gives the same latent and the same bits back."""
    from transformers import ViTMAEConfig, ViTMAEModel

    torch.manual_seed(0)
    sizes = dict(
        hidden_size=32,
        num_hidden_layers=3,
        num_attention_heads=2,
        intermediate_size=64,
        layer_norm_eps=1e-6,
    )
    theirs = randomized(ViTMAEModel(ViTMAEConfig(**sizes, image_size=32, patch_size=8)))
    assert detect(theirs.state_dict()) == ('hf', 'encoder')
    hub = to_mmpretrain(theirs.state_dict())
    ours = build('mmpretrain', 'pre-training').backbone
    ours.load_state_dict(
        {key.removeprefix('backbone.'): tensor for key, tensor in hub.items()}, strict=True
    )
    ours.eval()
    with torch.inference_mode():
        latent, expected = (
            ours(IMAGES, noise=NOISE)[0],
            theirs(IMAGES, noise=NOISE).last_hidden_state,
        )
        torch.testing.assert_close(latent, expected, rtol=1e-5, atol=1e-5)
    back = load(theirs, from_mmpretrain(hub, 'hf'), 'hf', tmp_path / 'hf')
    assert_identical(to_mmpretrain(back.state_dict()), hub)


@pytest.mark.openmmlab_only
@pytest.mark.parametrize('target', ['timm', 'hf'])
def test_linear_probe_is_folded(target, tmp_path):
    """timm and Hugging Face have no BatchNorm before the classifier, so it is folded."""
    source = randomized(build('mmpretrain', 'class-token linear probe'))
    weights = from_mmpretrain(source.state_dict(), target)
    twin = load(build(target, 'class-token classifier'), weights, target, tmp_path / 'hf')
    expected = output(source, 'mmpretrain', 'class-token linear probe')
    torch.testing.assert_close(
        output(twin, target, 'class-token classifier'), expected, rtol=1e-5, atol=1e-5
    )


@pytest.mark.parametrize('kind', KINDS)
def test_official_names(kind):
    """The keys are those of the authors' files, written out in models.py of this folder."""
    model = randomized(build('mmpretrain', kind))
    weights = from_mmpretrain(model.state_dict(), 'mae')
    assert weights.keys() == official_names(kind)
    assert detect(weights) == ('mae', kind)
    hub = to_mmpretrain(weights)
    assert detect(hub) == ('mmpretrain', kind)
    assert_identical(
        load(build('mmpretrain', kind), hub, 'mmpretrain', None).state_dict(), model.state_dict()
    )


@pytest.mark.parametrize('kind', [kind for kind, layouts in HAVE.items() if 'hf' in layouts])
def test_hugging_face_there_and_back(kind):
    hub = to_mmpretrain(randomized(build('mmpretrain', kind)).state_dict())
    weights = from_mmpretrain(hub, 'hf')
    assert detect(weights) == ('hf', kind)
    assert_identical(to_mmpretrain(weights), hub)
    prefix = '' if kind == 'encoder' else 'vit.'
    query, key, value = (
        weights[f'{prefix}encoder.layer.1.attention.attention.{name}.weight']
        for name in ('query', 'key', 'value')
    )
    assert torch.equal(
        torch.stack([query, key, value]).flatten(0, 1), hub['backbone.layers.1.attn.qkv.weight']
    )


@pytest.mark.openmmlab_only
@pytest.mark.parametrize('kind', [kind for kind, layouts in HAVE.items() if 'hf' in layouts])
def test_names_in_hugging_face_files(kind, tmp_path):
    """Names of save_pretrained are read and written, apart from an error of transformers 5.23."""
    from safetensors.torch import load_file

    model = randomized(build('hf', kind))
    model.save_pretrained(tmp_path)
    saved = load_file(tmp_path / 'model.safetensors')
    hub = to_mmpretrain(saved)
    assert_identical(hub, to_mmpretrain(model.state_dict()))
    weights = from_mmpretrain(hub, 'hf')
    # Its decoder's layers are decoder_encoder.layer.N; in version 4 and the hub's files they are
    # decoder_layers.N.
    written = {
        key.replace('decoder_encoder.layer.', 'decoder_layers.'): tensor
        for key, tensor in saved.items()
    }
    assert_identical(
        weights, {key: tensor for key, tensor in written.items() if 'pooler' not in key}
    )


def test_positions_are_carried_as_they_are():
    """The swapped halves of mmpretrain's released position embeddings stay swapped."""
    model = randomized(build('mmpretrain', 'encoder'))
    theirs = build_2d_sincos_position_embedding(4, 32, cls_token=True)
    ours = build('mmpretrain', 'pre-training').backbone.pos_embed
    assert (theirs[..., :16] - ours[..., 16:]).abs().max() < 1e-6 < (theirs - ours).abs().max()
    model.pos_embed.data.copy_(theirs)
    weights = from_mmpretrain(to_mmpretrain(model.state_dict()), 'mae')
    assert torch.equal(weights['pos_embed'], theirs)
    again = load(build('mmpretrain', 'encoder'), to_mmpretrain(weights), 'mmpretrain', None)
    with torch.inference_mode():
        assert torch.equal(again(IMAGES)[0], model(IMAGES)[0])


@pytest.mark.parametrize(
    'config',
    [
        dict(type='ResNet', depth=18),
        dict(type='SwinTransformer', arch='tiny'),
        dict(type='BEiTViT', arch='deit-tiny', img_size=32),
        dict(type='DistilledVisionTransformer', arch='deit-tiny', img_size=32),
        dict(type='VisionTransformer', arch='deit-tiny', img_size=32, layer_scale_init_value=0.1),
        dict(
            type='VisionTransformer',
            arch='deit-tiny',
            img_size=32,
            with_cls_token=False,
            out_type='raw',
        ),
        dict(type='MAEHiViT', arch='tiny', img_size=64),
    ],
)
def test_other_models_are_none_of_these(config):
    state = MODELS.build(config).state_dict()
    for weights in (state, {f'backbone.{key}': tensor for key, tensor in state.items()}):
        assert detect(weights) is None
        with pytest.raises(ValueError, match='the weights are'):
            to_mmpretrain(weights)


def test_every_key_must_be_there():
    """One missing or one additional key is enough to refuse a layout."""
    for kind in KINDS:
        for layout in (
            ('mmpretrain', 'mae', 'hf') if 'hf' in HAVE.get(kind, ()) else ('mmpretrain', 'mae')
        ):
            weights = from_mmpretrain(to_mmpretrain(build('mmpretrain', kind).state_dict()), layout)
            assert detect(weights) == (layout, kind)
            for key in weights:
                rest = {k: t for k, t in weights.items() if k != key}
                assert detect(rest) is None, key
            assert detect({**weights, 'more.weight': torch.zeros(1)}) is None
    assert detect({}) is None


def test_what_is_unknown_is_named():
    weights = from_mmpretrain(build('mmpretrain', 'pre-training').state_dict(), 'mae')
    more = {f'blocks.{i}.ls1.gamma': torch.zeros(1) for i in range(3)}
    with pytest.raises(ValueError) as error:
        to_mmpretrain({**weights, **more, 'extra': torch.zeros(1)})
    assert str(error.value) == (
        'the weights are nearly in layout mae, pre-training, but hold blocks.*.ls1.gamma (3), extra'
    )
    with pytest.raises(ValueError, match=r'but lack decoder_blocks\.\*\.norm1\.bias$'):
        to_mmpretrain(
            {key: tensor for key, tensor in weights.items() if key != 'decoder_blocks.1.norm1.bias'}
        )
    with pytest.raises(
        ValueError, match='in none of the layouts mmpretrain, mae, timm, hf: they hold conv.weight'
    ):
        to_mmpretrain({'conv.weight': torch.zeros(1)})


def test_what_a_layout_cannot_hold_is_refused():
    for kind in ('mean-pooled classifier', 'mean-pooled encoder', 'encoder without its last norm'):
        with pytest.raises(
            ValueError, match=rf'layout hf has no place for these weights \({kind}\): its models'
        ):
            from_mmpretrain(build('mmpretrain', kind).state_dict(), 'hf')
    with pytest.raises(
        ValueError, match="there is no layout 'tf'; there are mmpretrain, mae, timm, hf"
    ):
        from_mmpretrain(build('mmpretrain', 'encoder').state_dict(), 'tf')
    with pytest.raises(
        ValueError, match='the weights are in layout mae or timm, encoder, not mmpretrain'
    ):
        from_mmpretrain(from_mmpretrain(build('mmpretrain', 'encoder').state_dict(), 'mae'), 'hf')


def test_two_spellings_of_one_name_are_not_mixed():
    weights = from_mmpretrain(build('mmpretrain', 'encoder').state_dict(), 'hf')
    assert detect({**weights, 'layers.0.mlp.fc1.bias': torch.zeros(64)}) is None


def test_what_is_left_out_is_logged(monkeypatch):
    messages = []
    monkeypatch.setattr(
        'mae_plugin.weights.renaming.print_log', lambda line, logger: messages.append(line)
    )
    model = build('mmpretrain', 'pre-training')
    weights = {**model.state_dict(), 'data_preprocessor.mean': torch.zeros(3)}
    assert_identical(to_mmpretrain(weights), model.state_dict())
    assert from_mmpretrain(model.state_dict(), 'timm').keys() == official_names('encoder')
    from_mmpretrain(build('mmpretrain', 'class-token linear probe').state_dict(), 'hf')
    assert messages == [
        'Left out data_preprocessor.mean, which the network does not use.',
        'Left out the decoder, for which timm has no model.',
        "Folded the linear probe's BatchNorm into the classifier, as hf has none.",
    ]
