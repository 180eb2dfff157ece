"""Features of images from a frozen model, and files of features."""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from mmengine.model import is_model_wrapper
from mmpretrain.models.selfsup.base import BaseSelfSupervisor
from torch import Tensor, nn

from ..models.patches import patch_grid
from ..utils.atomic_files import check_free, staged
from ..utils.printable import printable
from .images import ImageLike, to_pictures
from .inferencer import ImageInferencer

POOLINGS = ('mean', 'cls', 'tokens')


def pooled_features(model: nn.Module, inputs: Tensor, pool: str = 'mean') -> Tensor:
    """Returns features of whole images from the last of the model's outputs.

    Args:
        model: a model of mmpretrain, wrapped for distributed training or not.
        inputs: (B, C, H, W), normalized images.
        pool: ``'mean'`` of the patch tokens, or ``'cls'``, the class token: (B, D); ``'tokens'``
            for all patch tokens, (B, L, D). The output of a model that pools by itself is returned
            unchanged.

    Raises:
        ValueError: if ``pool`` is unknown, or the model's output does not have it.
    """
    if pool not in POOLINGS:
        raise ValueError(f'pool={pool!r} is none of {", ".join(POOLINGS)}')
    core = model.module if is_model_wrapper(model) else model
    if isinstance(core, BaseSelfSupervisor):
        # Sharded parameters are gathered only when the wrapper itself is called.
        features = model(inputs, mode='tensor')
    else:
        features = core.extract_feat(inputs)
    if isinstance(features, (tuple, list)):
        features = features[-1]
    if features.ndim == 4:
        # (B, D, h, w) -> (B, L, D)
        tokens, cls_token = features.flatten(2).transpose(1, 2), None
    elif features.ndim == 3:
        extra = getattr(core.backbone, 'num_extra_tokens', 0)
        tokens = features[:, extra:]  # (B, L, D)
        cls_token = features[:, 0] if extra else None  # (B, D)
    elif pool == 'tokens':
        raise ValueError(
            f'{type(core).__name__} gives one vector for an image, without tokens of its patches'
        )
    else:
        return features
    if pool == 'cls' and cls_token is None:
        raise ValueError(f"{type(core).__name__} has no class token; use pool='mean'")
    return dict(mean=tokens.mean(dim=1), cls=cls_token, tokens=tokens)[pool]


class FeatureInferencer(ImageInferencer):
    """Extracts features: a call with an image or a list of them returns one array.

    The call also takes ``batch_size`` and ``pool`` (see :func:`pooled_features`). The arguments of
    the constructor are those of :class:`ImageInferencer`.
    """

    forward_kwargs = {'pool'}

    @torch.no_grad()
    def forward(self, inputs: dict, pool: str = 'mean') -> list[np.ndarray]:
        """Returns the features of each image of a batch."""
        normalized = self.model.data_preprocessor(inputs, False)['inputs']
        return list(pooled_features(self.model, normalized, pool).float().cpu().numpy())

    def postprocess(
        self, preds: list[np.ndarray], visualization: None, return_datasamples: bool = False
    ) -> np.ndarray:
        """Stacks the features of all images into one array, (N, D) or (N, L, D)."""
        return np.stack(preds)

    def color_patches(
        self, images: Sequence[ImageLike], batch_size: int = 1
    ) -> tuple[list[np.ndarray], list[np.ndarray]]:
        """Returns images and colors of their patch tokens.

        The colors are the first three principal components of the tokens of all images.

        Returns:
            The model's inputs as images, (H, W, 3) uint8, and the colors of their patches,
            (h, w, 3) uint8.
        """
        pictures: list[np.ndarray] = []
        tokens: list[torch.Tensor] = []
        grids: list[tuple[int, int]] = []
        patch_size = self.pipeline.smallest
        for batch in self.preprocess(images, batch_size):
            tokens += map(torch.from_numpy, self.forward(batch, 'tokens'))  # (L, D) each
            normalized = self.model.data_preprocessor(batch, False)['inputs']
            pictures += list(to_pictures(normalized, self.model.data_preprocessor))
            grids += [patch_grid(normalized, patch_size)] * len(normalized)
        components = principal_components(torch.cat(tokens))  # (sum of L, 3)
        # The outermost percent is clipped, so that single tokens do not set the range.
        low, high = components.quantile(0.01, dim=0), components.quantile(0.99, dim=0)
        shares = (components - low) / (high - low).clamp(min=1e-12)
        colors = (shares * 255).round().clamp(0, 255).byte()
        by_image = colors.split([len(token) for token in tokens])
        grids_of_colors = [
            color.reshape(*grid, 3).numpy() for color, grid in zip(by_image, grids, strict=True)
        ]
        return pictures, grids_of_colors


def principal_components(tokens: Tensor, number: int = 3) -> Tensor:
    """Projects tokens (N, D) on the directions of largest variance, (N, number).

    The sign of each direction is the one that makes its largest entry positive.
    """
    centered = tokens.double() - tokens.double().mean(dim=0)  # (N, D)
    _, directions = torch.linalg.eigh(centered.T @ centered)  # (D, D), by increasing variance
    directions = directions[:, -number:].flip(1)  # (D, number)
    largest = directions.gather(0, directions.abs().argmax(dim=0, keepdim=True))  # (1, number)
    return (centered @ (directions * largest.sign())).float()


def check_feature_file(path: Path, force: bool = False) -> None:
    """Raises ValueError if features cannot be written to a file; call it before computing them."""
    if path.suffix not in ('.npz', '.parquet'):
        raise ValueError(
            f'features are written as .npz or .parquet, so {path} must end in one of these'
        )
    if path.suffix == '.parquet' and importlib.util.find_spec('pyarrow') is None:
        raise ValueError(
            f'{path} needs pyarrow: pip install pyarrow, or name a file that ends in .npz'
        )
    check_free([path], force)


def save_features(
    path: str | Path, features: np.ndarray, files: Sequence[str | Path], force: bool = False
) -> None:
    """Writes features and the names of their files.

    Args:
        path: ``.npz`` for the arrays ``features`` (N, D) and ``files`` (N,); ``.parquet``, which
            needs pyarrow, for the columns ``file`` and ``feature``.
        features: (N, D).
        files: N names; bytes in them that are not UTF-8 are written as ``\\xe9``.
        force: overwrites an existing file.

    Raises:
        ValueError: if the extension is another one, or the file exists and ``force`` is not set.
    """
    path, files = Path(path), [printable(file) for file in files]
    check_feature_file(path, force)
    with staged(path, force) as part:
        if path.suffix == '.npz':
            np.savez(part, features=features, files=np.array(files))
        else:
            import pyarrow
            from pyarrow import parquet

            values = pyarrow.FixedSizeListArray.from_arrays(
                pyarrow.array(features.ravel()), features.shape[1]
            )
            parquet.write_table(pyarrow.table({'file': files, 'feature': values}), part)
