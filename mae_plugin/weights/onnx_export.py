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
# protobuf's limit for a file is 2 GB; above it the weights go into one of their own beside the
# graph.
_LARGEST = 1.9e9


def build_encoder(state_dict: dict[str, Tensor], sizes: Sizes, num_heads: int) -> VisionTransformer:
    """Builds mmpretrain's ViT from an encoder's weights (``backbone.*``); it returns every token,
    (B, 1 + L, D).
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
            'These weights have no LayerNorm after the last layer, so its tokens come as they are.',
            'current',
        )
    weights = {key.removeprefix('backbone.'): tensor.float() for key, tensor in state_dict.items()}
    model.load_state_dict({key: weights[key] for key in model.state_dict()})
    model.eval()
    return model


def write_onnx(state_dict: dict[str, Tensor], sizes: Sizes, num_heads: int, path: Path) -> float:
    """Writes an encoder that takes normalised ``images`` (N, C, H, W), any N, and gives ``tokens``
    (N, 1 + L, D).

    Returns:
        The largest difference from PyTorch on random images, run by onnxruntime.

    Raises:
        ValueError: if onnx, onnxscript or onnxruntime is missing, or the graph gives something else
            than PyTorch.
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
    for batch in (images, images[:1]):
        with torch.inference_mode():
            expected = model(batch)[0].numpy()
        (tokens,) = session.run(['tokens'], dict(images=batch.numpy()))
        difference = max(difference, float(np.abs(tokens - expected).max()))
    if not difference <= _TOLERANCE:
        raise ValueError(
            f'the ONNX graph differs from PyTorch by {difference:.1e}, more than {_TOLERANCE:.0e}'
        )
    return difference


class _Tokens(torch.nn.Module):
    """The encoder with its tensor taken out of the tuple."""

    def __init__(self, encoder: VisionTransformer) -> None:
        super().__init__()
        self.encoder = encoder

    def forward(self, images: Tensor) -> Tensor:
        return self.encoder(images)[0]
