"""Writes an encoder as an ONNX graph and compares it with PyTorch."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
import torch
from mmengine.logging import print_log
from mmpretrain.models import VisionTransformer
from torch import Tensor

from .architecture import Sizes

_TOLERANCE = 1e-4
# protobuf limits a file to 2 GB. Above this size the weights go into a second file beside it.
_LARGEST = 1.9e9


def build_encoder(state_dict: dict[str, Tensor], sizes: Sizes, num_heads: int) -> VisionTransformer:
    """Builds mmpretrain's ViT from the weights of an encoder.

    Args:
        state_dict: the weights, ``backbone.*``.
        sizes: the sizes of the encoder.
        num_heads: the number of its attention heads.

    Returns:
        The encoder, in evaluation mode, which returns every token, (B, 1 + L, D).
    """
    final_norm = 'backbone.ln1.weight' in state_dict
    model = VisionTransformer(
        arch=dict(
            embed_dims=sizes.embed_dims,
            num_layers=sizes.num_layers,
            num_heads=num_heads,
            feedforward_channels=sizes.feedforward_channels,
        ),
        img_size=sizes.img_size,
        patch_size=sizes.patch_size,
        in_channels=sizes.in_channels,
        final_norm=final_norm,
        out_type='raw',
    )
    if not final_norm:
        print_log(
            'These weights have no LayerNorm after the last layer, so its tokens are not '
            'normalized.',
            'current',
        )
    weights = {key.removeprefix('backbone.'): tensor.float() for key, tensor in state_dict.items()}
    # A mean-pooled encoder has a norm after pooling, which returns no tokens and is left out.
    model.load_state_dict({key: weights[key] for key in model.state_dict()})
    model.eval()
    return model


def write_onnx(state_dict: dict[str, Tensor], sizes: Sizes, num_heads: int, path: Path) -> float:
    """Writes an encoder from normalized ``images`` (N, C, H, W), any N, to ``tokens``.

    Args:
        state_dict: the weights, ``backbone.*``.
        sizes: the sizes of the encoder.
        num_heads: the number of its attention heads.
        path: the file.

    Returns:
        The largest difference of ``tokens``, (N, 1 + L, D), from PyTorch's on random images,
        computed by onnxruntime.

    Raises:
        ValueError: if onnx, onnxscript or onnxruntime is missing, or the graph's result differs
            from PyTorch's.
    """
    try:
        import onnxruntime
        import onnxscript  # noqa: F401  (torch's exporter needs it)
    except ImportError as error:
        raise ValueError(f"ONNX needs {error.name}: pip install 'mae_plugin[onnx]'") from None
    model = build_encoder(state_dict, sizes, num_heads)
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(3, sizes.in_channels, *sizes.img_size, generator=generator)
    with warnings.catch_warnings():
        # torch's exporter warns of deprecated parts of torch.
        warnings.simplefilter('ignore')
        program = torch.onnx.export(
            _Tokens(model).eval(),
            (images,),
            input_names=['images'],
            output_names=['tokens'],
            dynamic_shapes=({0: torch.export.Dim('N')},),
            dynamo=True,
            verbose=False,
        )
    size = sum(tensor.numel() * 4 for tensor in state_dict.values())
    program.save(str(path), external_data=size > _LARGEST)

    session = onnxruntime.InferenceSession(str(path), providers=['CPUExecutionProvider'])
    difference = 0.0
    # A batch of another size than the exported one shows that N is free.
    for batch in (images, images[:1]):
        with torch.inference_mode():
            expected = model(batch)[0].numpy()
        (tokens,) = session.run(['tokens'], dict(images=batch.numpy()))
        difference = max(difference, float(np.abs(tokens - expected).max()))
    # Written so that NaN fails too.
    if not difference <= _TOLERANCE:
        raise ValueError(
            f'the ONNX graph differs from PyTorch by {difference:.1e}, more than {_TOLERANCE:.0e}'
        )
    return difference


class _Tokens(torch.nn.Module):
    """An encoder that returns its tensor instead of a tuple."""

    def __init__(self, encoder: VisionTransformer) -> None:
        super().__init__()
        self.encoder = encoder

    def forward(self, images: Tensor) -> Tensor:
        return self.encoder(images)[0]
