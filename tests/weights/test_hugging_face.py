"""Hugging Face folders and stored configs with other JSON than ``save_pretrained`` writes."""

import json

import pytest
import torch
from mae_plugin.models.grids import stored_grid
from mae_plugin.weights.architecture import choose_num_heads
from mae_plugin.weights.hugging_face import check_config, read_folder
from mae_plugin.weights.loading import read_checkpoint
from mae_plugin.weights.stored_settings import grid_of, stored_settings
from safetensors.torch import save_file

DEEP = '[' * 100_000


@pytest.mark.parametrize(
    ('text', 'message'),
    [
        (DEEP, r'config\.json is not a readable JSON file'),
        ('{"a": ' + DEEP, r'config\.json is not a readable JSON file'),
        ('{"image_size": ' + '1' * 5000 + '}', r'config\.json is not a readable JSON file'),
        ('[["image_size", 3]]', r'config\.json holds a list instead of names and values'),
        ('3', r'config\.json holds a int instead of names and values'),
        (b'\xff\xfe{', r'config\.json is not a readable JSON file'),
    ],
)
def test_invalid_config(tmp_path, text, message):
    save_file(dict(w=torch.zeros(1)), tmp_path / 'model.safetensors')
    (tmp_path / 'config.json').write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(ValueError, match=message):
        read_checkpoint(str(tmp_path))


@pytest.mark.parametrize(
    ('places', 'error', 'message'),
    [
        (
            dict(weight_map=[1]),
            ValueError,
            r'index\.json does not list the file of each tensor',
        ),
        (
            dict(weight_map=dict(w=3)),
            ValueError,
            r'index\.json does not list the file of each tensor',
        ),
        ({}, ValueError, r'index\.json does not list the file of each tensor'),
        (
            dict(weight_map=dict(w='..')),
            FileNotFoundError,
            "names the file '..', which does not exist",
        ),
        (dict(weight_map=dict(w='')), FileNotFoundError, "names the file '', which does not exist"),
        (
            dict(weight_map=dict(w='../b.safetensors')),
            FileNotFoundError,
            "names the file 'b.safetensors', which does",
        ),
    ],
)
def test_invalid_index(tmp_path, places, error, message):
    """Formerly an empty name led back to the folder itself, without end."""
    (tmp_path / 'folder').mkdir()
    save_file(dict(w=torch.zeros(1)), tmp_path / 'b.safetensors')
    (tmp_path / 'folder/model.safetensors.index.json').write_text(json.dumps(places))
    with pytest.raises(error, match=message):
        read_folder(str(tmp_path / 'folder'), read_checkpoint)


@pytest.mark.parametrize(
    'value', ['224', [224], [224, '224'], [224, 0], 0, -1, 2.5, True, {}, [1, 2, 3]]
)
@pytest.mark.parametrize('name', ['image_size', 'patch_size'])
def test_sizes_that_are_none(name, value):
    config = dict(image_size=[32, 64], patch_size=8) | {name: value}
    with pytest.raises(
        ValueError, match=f'the config has {name}=.*, which is not a positive integer, nor two of'
    ):
        grid_of(dict(config=config), {})


def test_sizes():
    def grid(**config: object) -> tuple[int, int] | None:
        return grid_of(dict(config=config), {})

    assert (
        grid(image_size=[32, 64], patch_size=8)
        == grid(image_size=[32, 128], patch_size=[8, 16])
        == (4, 8)
    )
    assert (
        grid(image_size=[32, 64]) is None
        and grid(image_size=32, patch_size=8) is None
        and grid() is None
    )


@pytest.mark.parametrize('value', [0, -2, 'x', 12.0, True, [12], {}])
@pytest.mark.parametrize('name', ['num_attention_heads', 'decoder_num_attention_heads'])
def test_heads_that_are_none(name, value):
    """Formerly a width of 32 was divided into -2 heads, and a model was built."""
    ours = name.replace('_attention', '')
    with pytest.raises(ValueError, match=rf'has {ours}=.*, which is not a positive integer'):
        stored_settings(dict(config={name: value}))
    with pytest.raises(ValueError, match='into -2 heads; name the right num_heads=N'):
        choose_num_heads(32, -2, None)


@pytest.mark.parametrize(
    'checkpoint',
    [
        dict(config=dict(norm_pix_loss='yes')),
        dict(args=dict(norm_pix_loss=2)),
        dict(args=dict(norm_pix_loss=[])),
    ],
)
def test_a_loss_that_is_none(checkpoint):
    with pytest.raises(ValueError, match='has norm_pix=.*, which is neither True nor False'):
        stored_settings(checkpoint)


def test_settings():
    config = dict(num_attention_heads=4, decoder_num_attention_heads=2, norm_pix_loss=True)
    assert stored_settings(dict(config=config)) == dict(
        num_heads=4, decoder_num_heads=2, norm_pix=True
    )
    assert stored_settings(dict(args=dict(norm_pix_loss=False, lr=1))) == dict(norm_pix=False)
    for nothing in (
        dict(args=3, config=[], meta='x'),
        dict(meta=dict(cfg='(' * 10_000)),
        dict(meta=dict(cfg='\0')),
    ):
        assert stored_settings(nothing) == {}


@pytest.mark.parametrize('value', ['1e-6', None, [], True, -1.0, float('nan'), float('inf')])
def test_an_epsilon_that_is_none(value):
    with pytest.raises(ValueError, match='has layer_norm_eps=.*, which is not a small number'):
        check_config(dict(layer_norm_eps=value))


def test_an_activation_that_is_none():
    with pytest.raises(
        ValueError, match=r'has hidden_act=\[0, 0.*…, but models of the other layouts compute gelu'
    ) as error:
        check_config(dict(hidden_act=[0] * 10_000))
    assert len(str(error.value)) < 120


@pytest.mark.parametrize('grid', ['44', [4], (4, 0), (4.0, 4), None, {4: 4}, (True, 4)])
def test_a_grid_that_is_none(grid):
    weights = torch.nn.Linear(1, 1).state_dict()
    weights._metadata['backbone'] = dict(grid=grid)
    assert stored_grid(weights, 'backbone.') is None
    weights._metadata['backbone'] = dict(grid=(4, 2))
    assert stored_grid(weights, 'backbone.') == (4, 2)
