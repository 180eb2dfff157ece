"""Draws reconstructions of the same images under the same masks during pre-training."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import numpy as np
import torch
from mmengine.hooks import Hook
from mmengine.logging import print_log
from mmengine.registry import DATASETS
from mmengine.runner import Runner
from torch import nn
from torch.utils.data import Dataset

from ...analysis.reconstruct import (
    Reconstruction,
    check_reconstructs,
    draw_masks,
    reconstruct_batch,
)
from ...data.collate import CheckedCollate
from ...weights.foreign import unwrap
from ..loops.seeding import seeded
from ..parallel import keeps_whole_weights


class ReconstructionHook(Hook):
    """Draws a panel of reconstructions through all backends of the Runner's visualizer.

    Each row shows one image: original, masked, reconstruction, and reconstruction with the visible
    patches pasted in. The images are those of ``dataset``, or of the config's test dataset. If
    these cannot be read or do not fit the model, they are those of the training dataset. Sharded
    models get no panels. The hook restores random generators and the modes of all modules, so
    training is unaffected.

    Args:
        interval: epochs between two panels; the last epoch always gets one.
        by_epoch: whether ``interval`` counts epochs or iterations.
        num_images: number of images, at equal distances in the dataset; 0 for no panels.
        mask_ratio: share of patches to mask; the model's own by default.
        seed: seed of the masks.
        dataset: config of another dataset, with its pipeline.
        bands: bands to show, see :func:`mae_plugin.analysis.images.to_pictures`.
        pixel_range: range of pixel values, see the same function.
    """

    # After hooks that may end training early, and before the checkpoint hook.
    priority = 'LOW'

    def __init__(
        self,
        interval: int = 20,
        by_epoch: bool = True,
        num_images: int = 4,
        mask_ratio: float | None = None,
        seed: int = 0,
        dataset: dict | None = None,
        bands: Sequence[int] | None = None,
        pixel_range: tuple[float, float] = (0, 255),
    ) -> None:
        if interval < 1 or num_images < 0:
            raise ValueError(
                f'interval={interval} must be at least 1 and num_images={num_images} at least 0'
            )
        self.interval = interval
        self.by_epoch = by_epoch
        self.num_images = num_images
        self.mask_ratio = mask_ratio
        self.seed = seed
        self.dataset = dataset
        self.shown = dict(bands=bands, pixel_range=pixel_range)

    def before_train(self, runner: Runner) -> None:
        """Reads the images."""
        self._batch = None
        if self.num_images == 0:
            return
        if not keeps_whole_weights(runner.model):
            print_log('No panels are drawn, as the model is sharded.', logger='current')
            return
        try:
            check_reconstructs(unwrap(runner.model))
        except ValueError as error:
            print_log(f'No panels are drawn: {error}', logger='current', level=logging.WARNING)
            return
        # Pipelines may draw crops and flips.
        with seeded(self.seed):
            self._batch = self._read(runner)

    def after_train_epoch(self, runner: Runner) -> None:
        """Draws a panel after every ``interval`` epochs."""
        if not self.by_epoch:
            return
        if self.every_n_epochs(runner, self.interval) or self.is_last_train_epoch(runner):
            self._draw(runner, runner.iter)

    def after_train_iter(
        self, runner: Runner, batch_idx: int, data_batch=None, outputs=None
    ) -> None:
        """Draws a panel after every ``interval`` iterations."""
        if self.by_epoch:
            return
        if self.every_n_train_iters(runner, self.interval) or self.is_last_train_iter(runner):
            self._draw(runner, runner.iter + 1)

    def _read(self, runner: Runner) -> dict:
        """Returns the batch of images to reconstruct."""
        if self.dataset is not None:
            return self._samples(DATASETS.build(self.dataset))
        test = runner.cfg.get('test_dataloader') or {}
        if 'dataset' in test:
            try:
                batch = self._samples(DATASETS.build(test['dataset']))
                # Images that do not fit the model are detected now, not in the middle of a run.
                self._reconstruct(unwrap(runner.model), batch)
                return batch
            except Exception as error:
                # Any error: a missing picture must not end a run.
                print_log(
                    'Panels show training images, as those of the test dataset cannot be used: '
                    f'{error}',
                    'current',
                )
        return self._samples(runner.train_dataloader.dataset)

    def _samples(self, dataset: Dataset) -> dict:
        """Collates ``num_images`` samples at equal distances in a dataset."""
        number = min(self.num_images, len(dataset))
        return CheckedCollate()([dataset[i * len(dataset) // number] for i in range(number)])

    def _reconstruct(self, model: nn.Module, batch: dict) -> list[Reconstruction]:
        """Reconstructs a batch under the masks of ``seed``."""
        with _evaluating(model), seeded(self.seed), torch.no_grad():
            inputs = model.data_preprocessor(batch, False)['inputs']  # (B, C, H, W)
            generator = torch.Generator().manual_seed(self.seed)
            mask = draw_masks(model, inputs, self.mask_ratio, generator)  # (B, L)
            return reconstruct_batch(model, inputs, mask, **self.shown)

    def _draw(self, runner: Runner, step: int) -> None:
        """Draws a panel, and logs its loss and time."""
        if self._batch is None:
            return
        start = time.perf_counter()
        results = self._reconstruct(unwrap(runner.model), self._batch)
        rows = [result.panel() for result in results]
        # A white line of two pixels between two rows.
        white = np.full((2, rows[0].shape[1], 3), 255, np.uint8)  # (2, W, 3)
        panel = np.vstack([part for row in rows for part in (row, white)][:-1])
        runner.visualizer.add_image('reconstruction', panel, step)
        seconds = time.perf_counter() - start
        loss = np.mean([result.loss for result in results])
        unit = 'epoch' if self.by_epoch else 'iteration'
        runner.logger.info(
            f'Reconstructed {len(results)} images, loss {loss:.4f}, in {seconds:.2f} s, '
            f'{seconds / self.interval:.4f} s per {unit}.'
        )


@contextmanager
def _evaluating(model: nn.Module) -> Iterator[None]:
    """Sets evaluation mode within a context, and restores the mode of every module after it."""
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        yield
    finally:
        for module, mode in modes:
            module.training = mode
