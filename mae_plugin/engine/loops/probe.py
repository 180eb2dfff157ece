"""Probes features during pre-training: accuracies that measure whether the features improve."""

from __future__ import annotations

import time

import torch
from mmengine.dist import all_gather, all_reduce
from mmengine.registry import DATASETS
from mmengine.runner import EpochBasedTrainLoop, Runner, ValLoop, autocast
from torch import Tensor
from torch.utils.data import DataLoader, Subset

from ...analysis.features import POOLINGS, pooled_features
from ...analysis.probe import LinearClassifier, knn_predict
from ...data.collate import CheckedCollate
from ...utils._compat.mmengine import built_loop
from ...weights.foreign import unwrap
from ..hooks.class_names import class_names, share_classes
from .ready_loader import config_of

_SECONDS_BETWEEN_LINES = 30


class ProbeLoop(ValLoop):
    """Replaces mmengine's validation by a classification of images with frozen features.

    Two classifiers are fitted to a bank of labeled images and evaluated on the images of
    ``val_dataloader``: nearest neighbors, and a linear one (:mod:`mae_plugin.analysis.probe`).
    Their accuracies are logged as ``probe/knn_top1`` and ``probe/linear_top1`` in percent, and
    ``save_best`` of the checkpoint hook may use them. Each rank extracts its share of the features
    and keeps it on its device. ``train_cfg.val_interval`` sets how often the loop runs.

    Args:
        runner: the Runner.
        dataloader: data loader of the images to classify, with labels, or its config.
        evaluator: an empty list, as further metrics are not evaluated.
        bank: settings in which the dataset of the labeled images differs from that of
            ``dataloader``, such as ``dict(split='train')`` or ``dict(data_prefix='train')``. It is
            a whole config if ``dataloader`` is a data loader.
        bank_size: number of images of the bank, at equal distances; all by default.
        pool: pooling of the features, see :func:`pooled_features`.
        k: number of neighbors.
        strength: strength of the linear classifier's regularization, see
            :class:`LinearClassifier`.
        fp16: whether to extract features in float16.

    Raises:
        ValueError: if ``dataloader`` is a data loader with its own order, images have no labels, an
            image to classify is of a class that the bank lacks, or ``pool`` is unknown.
    """

    def __init__(
        self,
        runner: Runner,
        dataloader: dict,
        evaluator: list,
        bank: dict,
        bank_size: int | None = None,
        pool: str = 'mean',
        k: int = 20,
        strength: float = 1.0,
        fp16: bool = False,
    ) -> None:
        if pool not in POOLINGS:
            raise ValueError(f'val_cfg.pool={pool!r} is not one of {", ".join(POOLINGS)}')
        is_config = isinstance(dataloader, dict)
        if not is_config:
            dataloader = _config_for_probe(dataloader, bank)
        # `_all_shares` relies on the order of this sampler.
        fixed = dict(sampler=dict(type='DefaultSampler', shuffle=False), drop_last=False)
        dataloader = {**dataloader, **fixed, 'collate_fn': CheckedCollate()}
        super().__init__(runner, dataloader, evaluator, fp16)
        dataset = DATASETS.build({**(dataloader['dataset'] if is_config else {}), **bank})
        if classes := class_names(dataset):
            share_classes(self.dataloader.dataset, classes, 'val_dataloader', 'val_cfg.bank')
        if bank_size is not None and bank_size < len(dataset):
            dataset = Subset(dataset, [i * len(dataset) // bank_size for i in range(bank_size)])
        self.bank = runner.build_dataloader({**dataloader, 'dataset': dataset}, seed=runner.seed)
        self.pool = pool
        self.k = k
        self.strength = strength

    @torch.no_grad()
    def run(self) -> dict[str, float]:
        """Probes the present model; returns the accuracies in percent."""
        start = time.perf_counter()
        self.runner.call_hook('before_val')
        self.runner.call_hook('before_val_epoch')
        self.runner.model.eval()
        # This rank's share of the bank, (n, D) and (n,).
        features, labels = self._extract(self.bank)
        features, labels = (
            _without_padding(features, self.bank),
            _without_padding(labels, self.bank),
        )
        # All images to classify, (N, D) and (N,), on every rank.
        queries, truth = self._extract(self.dataloader)
        queries, truth = _all_shares(queries, self.dataloader), _all_shares(truth, self.dataloader)
        # A rank's share of the bank may lack the last classes.
        last_class = torch.stack([labels.max(), truth.max()]).max()
        all_reduce(last_class, 'max')
        num_classes = int(last_class) + 1
        linear = LinearClassifier(features, labels, num_classes, self.strength)
        predictions = dict(
            knn=knn_predict(features, labels, queries, num_classes, self.k),
            linear=linear(queries).argmax(dim=1),
        )
        metrics = {}
        for name, predicted in predictions.items():
            metrics[f'probe/{name}_top1'] = 100 * (predicted == truth).double().mean().item()
        seconds = time.perf_counter() - start
        self.runner.logger.info(
            f'Probed {len(queries)} images with a bank of {len(self.bank.dataset)} in '
            f'{seconds:.1f} s{self._cost(seconds)}; the linear classifier took {linear.steps} '
            'steps.'
        )
        self.runner.call_hook('after_val_epoch', metrics=metrics)
        self.runner.call_hook('after_val')
        return metrics

    def _cost(self, seconds: float) -> str:
        """Formats the seconds per epoch or iteration of training; empty without training."""
        loop = built_loop(self.runner, 'train')
        if loop is None:
            return ''
        unit = 'epoch' if isinstance(loop, EpochBasedTrainLoop) else 'iteration'
        return f', {seconds / loop.val_interval:.4f} s per {unit}'

    def _extract(self, loader: DataLoader) -> tuple[Tensor, Tensor]:
        """Returns this rank's features (n, D) and labels (n,)."""
        model = self.runner.model
        preprocessor = unwrap(model).data_preprocessor
        features, labels = [], []
        start = last_line = time.monotonic()
        for i, batch in enumerate(loader, 1):
            data = preprocessor(batch, False)
            if any('gt_label' not in sample for sample in data['data_samples']):
                raise ValueError(
                    'the images of val_dataloader or of val_cfg.bank have no labels, which a probe '
                    'needs; set with_label=True in their datasets'
                )
            with autocast(enabled=self.fp16):
                pooled = pooled_features(model, data['inputs'], self.pool).float()  # (B, D)
            features.append(pooled)
            labels += [sample.gt_label.to(pooled.device) for sample in data['data_samples']]
            now = time.monotonic()
            if now - last_line > _SECONDS_BETWEEN_LINES:
                last_line = now
                left = (now - start) / i * (len(loader) - i)
                self.runner.logger.info(
                    f'Extracting features: batch {i} of {len(loader)}, {left:.0f} s left.'
                )
        return torch.cat(features), torch.cat(labels)


def _config_for_probe(loader: object, bank: dict) -> dict:
    """Returns the config of a data loader object.

    Raises:
        ValueError: if no config builds it, or ``bank`` is not a whole config.
    """
    config = config_of(loader)
    if config is None:
        raise ValueError(
            f'val_dataloader is a {type(loader).__name__} with an order of its own; a probe needs '
            'its config'
        )
    if 'type' not in bank:
        raise ValueError(
            'val_dataloader is a data loader and not a config, so val_cfg.bank cannot be a change '
            'of it; set val_cfg.bank to the whole config of a dataset'
        )
    return config


def _without_padding(share: Tensor, loader: DataLoader) -> Tensor:
    """Drops the samples by which the sampler pads this rank's share."""
    sampler = loader.sampler
    return share[: len(range(sampler.rank, len(loader.dataset), sampler.world_size))]


def _all_shares(share: Tensor, loader: DataLoader) -> Tensor:
    """Gathers the shares of all ranks in the order of the dataset."""
    # Ranks take turns: (n, ranks, ...) is the order of the dataset, with the padding at the end.
    return torch.stack(all_gather(share), dim=1).flatten(0, 1)[: len(loader.dataset)]
