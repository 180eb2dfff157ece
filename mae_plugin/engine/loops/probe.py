"""A number during pre-training that says whether the features are getting better."""

from __future__ import annotations

import time

import torch
from mmengine.dist import all_gather, all_reduce
from mmengine.model import is_model_wrapper
from mmengine.registry import DATASETS
from mmengine.runner import EpochBasedTrainLoop, Runner, ValLoop, autocast
from torch import Tensor
from torch.utils.data import DataLoader, Subset

from ...analysis.features import POOLINGS, pooled_features
from ...analysis.probe import LinearClassifier, knn_predict
from ...data.collate import CheckedCollate
from ...utils._compat.mmengine import built_loop
from ..hooks.class_names import class_names, share_classes
from .ready_loader import config_of

_SECONDS_BETWEEN_LINES = 30


class ProbeLoop(ValLoop):
    """Classifies images by frozen features, in the place of mmengine's validation.

    Two classifiers learn from a bank of labelled images and are asked about those of
    ``val_dataloader``: the nearest neighbours, and a linear one (:mod:`mae_plugin.analysis.probe`).
    Their accuracies are logged as ``probe/knn_top1`` and ``probe/linear_top1`` in percent, by which
    the checkpoint hook's ``save_best`` may choose. Each process extracts its share of the features
    and keeps it on its device. How often it runs is said by ``train_cfg.val_interval``.

    Args:
        runner: the Runner.
        dataloader: data loader of the images to classify, with labels, or its config.
        evaluator: further metrics are not evaluated: an empty list.
        bank: what the dataset of labelled images has different from that of ``dataloader``, such as
            ``dict(split='train')`` or ``dict(data_prefix='train')``. Its whole
            config, where ``dataloader`` is built already.
        bank_size: take so many images of the bank, at equal distances; all if left out.
        pool: what of the features is taken, see :func:`pooled_features`.
        k: number of neighbours.
        strength: of the linear classifier, see :class:`LinearClassifier`.
        fp16: extract in float16.

    Raises:
        ValueError: if ``dataloader`` is built already with an order of its own, images have no
            labels, some to classify are of a class that the bank does not have, or there is no such
            ``pool``.
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
            raise ValueError(f'val_cfg.pool={pool!r} is none of {", ".join(POOLINGS)}')
        ready = not isinstance(dataloader, dict)
        if ready:
            kind = type(dataloader).__name__
            dataloader = config_of(dataloader)
            if dataloader is None:
                raise ValueError(
                    f'val_dataloader is a {kind} with an order of its own; a probe needs its config'
                )
            if 'type' not in bank:
                raise ValueError(
                    'val_dataloader is built already, so val_cfg.bank cannot say what is '
                    'different from its config; '
                    'give the bank as the whole config of a dataset'
                )
        # The shares of the processes are put together again by this sampler's order.
        fixed = dict(sampler=dict(type='DefaultSampler', shuffle=False), drop_last=False)
        dataloader = {**dataloader, **fixed, 'collate_fn': CheckedCollate()}
        super().__init__(runner, dataloader, evaluator, fp16)
        dataset = DATASETS.build({**({} if ready else dataloader['dataset']), **bank})
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
        """Probes the model as it is; returns the accuracies."""
        start = time.perf_counter()
        self.runner.call_hook('before_val')
        self.runner.call_hook('before_val_epoch')
        self.runner.model.eval()
        features, labels = (_own(part, self.bank) for part in self._extract(self.bank))
        queries, truth = (
            _everyones(part, self.dataloader) for part in self._extract(self.dataloader)
        )
        most = torch.stack([labels.max(), truth.max()]).max()
        all_reduce(most, 'max')
        num_classes = int(most) + 1
        linear = LinearClassifier(features, labels, num_classes, self.strength)
        predictions = dict(
            knn=knn_predict(features, labels, queries, num_classes, self.k),
            linear=linear(queries).argmax(dim=1),
        )
        metrics = {
            f'probe/{name}_top1': 100 * (predicted == truth).double().mean().item()
            for name, predicted in predictions.items()
        }
        seconds = time.perf_counter() - start
        share = ''
        if (train_loop := built_loop(self.runner, 'train')) is not None:
            unit = 'epoch' if isinstance(train_loop, EpochBasedTrainLoop) else 'iteration'
            share = f', {seconds / train_loop.val_interval:.4f} s per {unit}'
        self.runner.logger.info(
            f'Probed {len(queries)} images with a bank of {len(self.bank.dataset)} in '
            f'{seconds:.1f} s{share}; '
            f'the linear classifier took {linear.steps} steps.'
        )
        self.runner.call_hook('after_val_epoch', metrics=metrics)
        self.runner.call_hook('after_val')
        return metrics

    def _extract(self, loader: DataLoader) -> tuple[Tensor, Tensor]:
        """This process's features (n, D) and labels (n,)."""
        model = self.runner.model
        preprocessor = (model.module if is_model_wrapper(model) else model).data_preprocessor
        features, labels = [], []
        start = said = time.monotonic()
        for i, batch in enumerate(loader, 1):
            data = preprocessor(batch, False)
            if any('gt_label' not in sample for sample in data['data_samples']):
                raise ValueError(
                    'a probe needs labels, but the images of val_dataloader or the bank have none'
                )
            with autocast(enabled=self.fp16):
                features.append(pooled_features(model, data['inputs'], self.pool).float())
            labels += [sample.gt_label.to(features[-1].device) for sample in data['data_samples']]
            now = time.monotonic()
            if now - said > _SECONDS_BETWEEN_LINES:
                said = now
                left = (now - start) / i * (len(loader) - i)
                self.runner.logger.info(
                    f'Extracting features: batch {i} of {len(loader)}, {left:.0f} s left.'
                )
        return torch.cat(features), torch.cat(labels)


def _own(share: Tensor, loader: DataLoader) -> Tensor:
    """A process's share without the samples by which the sampler makes all shares as long as each
    other.
    """
    sampler = loader.sampler
    return share[: len(range(sampler.rank, len(loader.dataset), sampler.world_size))]


def _everyones(share: Tensor, loader: DataLoader) -> Tensor:
    """The shares of all processes in the dataset's order."""
    return torch.stack(all_gather(share), dim=1).flatten(0, 1)[: len(loader.dataset)]
