"""Features of images from a frozen model."""

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
    """Features of whole images (B, C, H, W), normalised, from the last of the model's outputs.

    Args:
        model: a model of mmpretrain's, wrapped for distributed training or not.
        inputs: normalised images.
        pool: ``'mean'`` of the patch tokens, or ``'cls'``, the class token: (B, D); ``'tokens'``
            for all patch tokens, (B, L, D). A model that pools by itself is taken as it is.

    Raises:
        ValueError: for another ``pool``, or one that the model's output does not have.
    """
    if pool not in POOLINGS:
        raise ValueError(f'pool={pool!r} is none of {", ".join(POOLINGS)}')
    core = model.module if is_model_wrapper(model) else model
    # Sharded parameters are put together for a call of the module alone.
    features = (
        model(inputs, mode='tensor')
        if isinstance(core, BaseSelfSupervisor)
        else core.extract_feat(inputs)
    )
    features = features[-1] if isinstance(features, (tuple, list)) else features
    if features.ndim == 4:
        tokens, cls_token = features.flatten(2).transpose(1, 2), None
    elif features.ndim == 3:
        extra = getattr(core.backbone, 'num_extra_tokens', 0)
        tokens, cls_token = features[:, extra:], features[:, 0] if extra else None
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
    """Extracts features: called with an image or a list of them, ``batch_size`` and ``pool``, it
    returns an array.

    Arguments are those of :class:`ImageInferencer`; ``pool`` is that of :func:`pooled_features`.
    """

    forward_kwargs = {'pool'}

    @torch.no_grad()
    def forward(self, inputs: dict, pool: str = 'mean') -> list[np.ndarray]:
        """Features of a batch."""
        normalised = self.model.data_preprocessor(inputs, False)['inputs']
        return list(pooled_features(self.model, normalised, pool).float().cpu().numpy())

    def postprocess(
        self, preds: list[np.ndarray], visualization: None, return_datasamples: bool = False
    ) -> np.ndarray:
        """Puts the features of all images into one array, (N, D) or (N, L, D)."""
        return np.stack(preds)

    def colour_patches(
        self, images: Sequence[ImageLike], batch_size: int = 1
    ) -> tuple[list[np.ndarray], list[np.ndarray]]:
        """Shows patch tokens as colours: their first three principal components over all of the
        images.

        Returns:
            The images as the model gets them, (H, W, 3) uint8, and the colours of their patches,
            (h, w, 3) uint8.
        """
        pictures, tokens, grids = [], [], []
        patch_size = self.pipeline.smallest
        for batch in self.preprocess(images, batch_size):
            tokens += map(torch.from_numpy, self.forward(batch, 'tokens'))
            normalised = self.model.data_preprocessor(batch, False)['inputs']
            pictures += list(to_pictures(normalised, self.model.data_preprocessor))
            grids += [patch_grid(normalised, patch_size)] * len(normalised)
        components = principal_components(torch.cat(tokens))
        low, high = (components.quantile(share, dim=0) for share in (0.01, 0.99))
        colours = (
            ((components - low) / (high - low).clamp(min=1e-12) * 255).round().clamp(0, 255).byte()
        )
        by_image = colours.split([len(token) for token in tokens])
        return pictures, [
            c.reshape(*grid, 3).numpy() for c, grid in zip(by_image, grids, strict=True)
        ]


def principal_components(tokens: Tensor, number: int = 3) -> Tensor:
    """(N, D) -> (N, number): coordinates along the directions of largest variance.

    Of each direction's two signs, the one that makes its largest entry positive.
    """
    centred = tokens.double() - tokens.double().mean(dim=0)
    _, directions = torch.linalg.eigh(centred.T @ centred)
    directions = directions[:, -number:].flip(1)
    largest = directions.gather(0, directions.abs().argmax(dim=0, keepdim=True))
    return (centred @ (directions * largest.sign())).float()


def check_feature_file(path: Path, force: bool = False) -> None:
    """Raises ValueError if features cannot be written under this name; said before they are
    computed.
    """
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
        force: overwrite what is there.
    """
    path, files = Path(path), [printable(file) for file in files]
    check_feature_file(path, force)
    with staged(path, force) as unfinished:
        if path.suffix == '.npz':
            np.savez(unfinished, features=features, files=np.array(files))
        else:
            import pyarrow
            from pyarrow import parquet

            values = pyarrow.FixedSizeListArray.from_arrays(
                pyarrow.array(features.ravel()), features.shape[1]
            )
            parquet.write_table(pyarrow.table({'file': files, 'feature': values}), unfinished)
