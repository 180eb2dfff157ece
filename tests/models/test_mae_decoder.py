"""The decoder: its sizes, the order of its tokens, and its position embedding."""

import pytest
import torch
from mae_plugin import MAEPretrainDecoder
from mae_plugin.models.mae_decoder import DecoderLayer
from mae_plugin.models.masking import masking_from_noise
from mae_plugin.models.patches import take_tokens
from mae_plugin.models.positions import sincos_position_embedding
from mmpretrain import models as mmpretrain_models

SMALL = dict(embed_dim=12, decoder_embed_dim=16, decoder_depth=1, decoder_num_heads=2)


def test_alone_it_has_mmpretrains_sizes():
    ours, theirs = (
        MAEPretrainDecoder(decoder_depth=1),
        mmpretrain_models.MAEPretrainDecoder(decoder_depth=1),
    )
    shapes = {name: tensor.shape for name, tensor in theirs.state_dict().items()}
    assert {name: tensor.shape for name, tensor in ours.state_dict().items()} == shapes
    assert ours(torch.rand(1, 50, 1024), torch.arange(196).unsqueeze(0)).shape == (1, 196, 768)


def test_positional_arguments_are_mmpretrains():
    decoder = MAEPretrainDecoder(16, 8, 3, 12, 16, 1, 2, 2)
    assert decoder.decoder_pred.out_features == 192
    assert decoder.decoder_blocks[0].ffn.feedforward_channels == 32


def test_visible_tokens_go_back_to_their_places():
    """Without layers, every patch is a function of its own token and can be computed alone."""
    torch.manual_seed(0)
    decoder = MAEPretrainDecoder(grid_size=(2, 3), **{**SMALL, 'decoder_depth': 0}).double()
    latent = torch.randn(2, 1 + 2, 12, dtype=torch.double)
    ids_keep = torch.tensor([[4, 1], [0, 5]])
    mask = torch.ones(2, 6).scatter_(1, ids_keep, 0)
    noise = mask.clone().scatter_(1, ids_keep, torch.tensor([[-2.0, -1.0]]).expand(2, -1))
    masking = masking_from_noise(noise, 2)
    assert masking.ids_keep.tolist() == ids_keep.tolist()
    prediction = decoder(latent, masking.ids_restore)
    for image in range(2):
        for patch in range(6):
            if patch in ids_keep[image].tolist():
                token = decoder.decoder_embed(
                    latent[image, 1 + ids_keep[image].tolist().index(patch)]
                )
            else:
                token = decoder.mask_token[0, 0]
            expected = decoder.decoder_pred(
                decoder.ln1(token + decoder.decoder_pos_embed[0, 1 + patch])
            )
            torch.testing.assert_close(prediction[image, patch], expected, rtol=1e-12, atol=1e-12)


def test_position_embedding_is_there_and_fixed():
    decoder = MAEPretrainDecoder(grid_size=(2, 5), **SMALL)
    assert torch.equal(decoder.decoder_pos_embed.data, sincos_position_embedding((2, 5), 16))
    assert not decoder.decoder_pos_embed.requires_grad
    decoder.init_weights()
    assert torch.equal(decoder.decoder_pos_embed.data, sincos_position_embedding((2, 5), 16))
    assert decoder.mask_token.std().item() == pytest.approx(0.02, rel=0.6)


def test_another_grid():
    decoder = MAEPretrainDecoder(grid_size=(2, 2), **SMALL)
    assert decoder(torch.randn(1, 3, 12), torch.arange(12).unsqueeze(0), grid=(3, 4)).shape == (
        1,
        12,
        768,
    )
    with pytest.raises(ValueError, match='12 patches, but the grid is 2 x 2'):
        decoder(torch.randn(1, 3, 12), torch.arange(12).unsqueeze(0))


def test_bad_sizes():
    with pytest.raises(ValueError, match=r'num_patches=8 is not a square .* grid_size'):
        MAEPretrainDecoder(num_patches=8, **SMALL)
    with pytest.raises(ValueError, match=r'num_patches=9 does not fit grid_size=\(2, 4\)'):
        MAEPretrainDecoder(num_patches=9, grid_size=(2, 4), **SMALL)


def test_predict_feature_dim():
    assert MAEPretrainDecoder(predict_feature_dim=7, **SMALL).decoder_pred.out_features == 7


def test_removed_only(build_tiny):
    """Predictions of removed patches alone equal those of all, in the order of ids_removed."""
    neck = build_tiny().neck
    latent, noise = torch.randn(3, 5, 32), torch.rand(3, 16)
    masking = masking_from_noise(noise, 4)
    whole = neck(latent, masking.ids_restore)
    removed = neck(latent, masking.ids_restore, removed_only=True)
    torch.testing.assert_close(removed, take_tokens(whole, masking.ids_removed))


def test_whole_layers_are_mmpretrains():
    """The layer that can compute the last tokens alone equals mmpretrain's layer on all tokens."""
    torch.manual_seed(0)
    layer = DecoderLayer(32, 4, 64, layer_scale_init_value=0.5)
    for parameter in layer.parameters():
        parameter.data += 0.1 * torch.randn_like(parameter)
    tokens = torch.randn(2, 7, 32)
    torch.testing.assert_close(layer(tokens, first_query=3), layer(tokens)[:, 3:])
