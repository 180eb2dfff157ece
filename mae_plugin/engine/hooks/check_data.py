"""Checks before the first step that the data fit the model and the other datasets of the run."""

from __future__ import annotations

import logging

from mmcv.transforms import CenterCrop, Resize
from mmengine.hooks import Hook
from mmengine.logging import print_log
from mmengine.runner import Runner
from mmpretrain.datasets import RandomResizedCrop
from torch import nn
from torch.utils.data import DataLoader, Dataset

from ...data import LoadCenterCrop, LoadRandomCrop
from ...data.collate import CheckedCollate
from ...models.patches import to_pair
from ...utils._compat.mmengine import built_loop, is_resuming
from ...weights.foreign import unwrap
from .class_names import class_names, indexed_images, layers, share_classes


class DataFitHook(Hook):
    """Labels the classes of all splits as training does, and compares the data with the model.

    Labels from folders, annotations or tar files are numbered within one dataset. If ``val/`` lacks
    a class of ``train/``, all later labels would be shifted. In training the classes of
    ``train_dataloader`` apply to every other split. In evaluation, and when training resumes, those
    of the checkpoint apply.

    A dataset with more classes than ``model.head.num_classes`` is an error. Fewer classes are
    logged, as are training crops of another size than ``model.backbone.img_size``, for which the
    position embedding is resized.

    Raises:
        ValueError: for an unknown class, classes in another order, or more classes than the model
            has.
    """

    def before_run(self, runner: Runner) -> None:
        """Applies the classes of training to the other splits, and checks images in batches."""
        for name in ('train', 'val', 'test'):
            if loop := built_loop(runner, name):
                _check_batches(loop.dataloader)
        if built_loop(runner, 'train'):
            train = runner.train_dataloader.dataset
            if classes := class_names(train):
                _share(runner, classes, 'training')
            # Labels without names are numbers in a list or an annotation file.
            elif any(part.with_label for part in indexed_images(train)):
                _refuse_names(runner)

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Applies the classes of a checkpoint in evaluation, and in training that resumes."""
        trains = built_loop(runner, 'train') is not None
        if trains and not is_resuming(runner):
            return
        meta = checkpoint.get('meta') or {}
        # Older versions of mmpretrain wrote the names in capitals.
        classes = (meta.get('dataset_meta') or {}).get('classes') or meta.get('CLASSES')
        if not classes or not all(isinstance(name, str) for name in classes):
            return
        if trains:
            dataset = runner.train_dataloader.dataset
            share_classes(dataset, classes, 'train_dataloader', 'the checkpoint')
        _share(runner, classes, 'the checkpoint')

    def before_train(self, runner: Runner) -> None:
        """Compares the number of classes and the size of the crops with the model."""
        model, train = unwrap(runner.model), runner.train_dataloader.dataset
        _check_num_classes(model, train, 'train_dataloader')
        _check_mixing(model)
        if built_loop(runner, 'val'):
            _check_num_classes(model, runner.val_dataloader.dataset, 'val_dataloader')
        _check_size(model, train)

    def before_val(self, runner: Runner) -> None:
        """Compares the number of classes with the model."""
        if not built_loop(runner, 'train'):
            dataset = runner.val_dataloader.dataset
            _check_num_classes(unwrap(runner.model), dataset, 'val_dataloader')

    def before_test(self, runner: Runner) -> None:
        """Compares the number of classes with the model."""
        dataset = runner.test_dataloader.dataset
        _check_num_classes(unwrap(runner.model), dataset, 'test_dataloader')


def _check_batches(loader: object) -> None:
    """Makes a data loader name the files of images that do not fit in one batch."""
    if isinstance(loader, DataLoader) and not isinstance(loader.collate_fn, CheckedCollate):
        loader.collate_fn = CheckedCollate(loader.collate_fn)


def _share(runner: Runner, classes: tuple[str, ...], origin: str) -> None:
    """Applies classes to the datasets of validation, testing and the probe's bank."""
    for name in ('val', 'test'):
        loop = built_loop(runner, name)
        if loop is None:
            continue
        dataset = loop.dataloader.dataset
        share_classes(dataset, classes, f'{name}_dataloader', origin)
        if bank := getattr(loop, 'bank', None):
            share_classes(bank.dataset, classes, f'{name}_cfg.bank', origin)
        # Both hold a copy of the class names from when they were built.
        if hasattr(dataset, 'metainfo'):
            loop.evaluator.dataset_meta = runner.visualizer.dataset_meta = dataset.metainfo


def _refuse_names(runner: Runner) -> None:
    """Raises ValueError if a split has class names and the labels of training are numbers."""
    for name in ('val', 'test'):
        loop = built_loop(runner, name)
        names = class_names(loop.dataloader.dataset) if loop else None
        if names:
            raise ValueError(
                f'the labels of train_dataloader are numbers, but {name}_dataloader names classes '
                f'({names[0]}, …); use numbers in {name}_dataloader, or names in '
                'train_dataloader.dataset'
            )


def _check_num_classes(model: nn.Module, dataset: Dataset, setting: str) -> None:
    """Raises ValueError for more classes than the model has, and logs fewer."""
    expected = getattr(getattr(model, 'head', None), 'num_classes', None)
    number = _num_classes(dataset)
    if not isinstance(expected, int) or number is None or number == expected:
        return
    remedy = f'set model.head.num_classes={number} data_preprocessor.num_classes={number}'
    if number > expected:
        raise ValueError(
            f'{setting} has {number} classes, but model.head.num_classes is {expected}; {remedy}'
        )
    text = (
        f'{setting} has {number} classes, fewer than model.head.num_classes, {expected}. Unless '
        f'this is intended, {remedy}.'
    )
    print_log(text, logger='current', level=logging.WARNING)


def _check_mixing(model: nn.Module) -> None:
    """Raises ValueError if labels of Mixup or CutMix have another length than predictions."""
    preprocessor = getattr(model, 'data_preprocessor', None)
    expected = getattr(getattr(model, 'head', None), 'num_classes', None)
    number = getattr(preprocessor, 'num_classes', None)
    if getattr(preprocessor, 'batch_augments', None) is None:
        return
    if isinstance(expected, int) and isinstance(number, int) and number != expected:
        raise ValueError(
            f'data_preprocessor.num_classes is {number}, but model.head.num_classes is {expected}, '
            'and Mixup and CutMix need both to be equal; set '
            f'data_preprocessor.num_classes={expected}'
        )


def _num_classes(dataset: Dataset) -> int | None:
    """Returns the number of classes by names or labels, or None if it is unknown."""
    if names := class_names(dataset):
        return len(names)
    labeled = [part for part in indexed_images(dataset) if part.with_label]
    return max((int(part.get_gt_labels().max()) + 1 for part in labeled if len(part)), default=None)


def _check_size(model: nn.Module, dataset: Dataset) -> None:
    """Logs a warning if training crops have another size than the position embedding."""
    backbone = getattr(model, 'backbone', None)
    expected, size = getattr(backbone, 'img_size', None), _crop_size(dataset)
    if expected is None or size is None or to_pair(expected) == size:
        return
    (height, width), (h, w) = to_pair(expected), size
    text = (
        f'train_dataloader gives images of {h} x {w} pixels, but model.backbone.img_size is '
        f'{height} x {width}, so the position embedding is resized. Unless this is intended, set '
        'model.backbone.img_size or the scale in train_dataloader.dataset.pipeline.'
    )
    print_log(text, logger='current', level=logging.WARNING)


def _crop_size(dataset: Dataset) -> tuple[int, int] | None:
    """Returns the (H, W) of a dataset's images after its pipeline, or None if it is unknown."""
    pipelines = [part.pipeline for part in layers(dataset) if hasattr(part, 'pipeline')]
    if not pipelines:
        return None
    for step in reversed(getattr(pipelines[0], 'transforms', [])):
        if isinstance(step, (LoadRandomCrop, LoadCenterCrop)):
            return to_pair(step.scale)
        if isinstance(step, (RandomResizedCrop, CenterCrop, Resize)):
            size = to_pair(getattr(step, 'crop_size', None) or step.scale or 0)
            # Libraries differ in whether the width comes first, so only squares are known.
            is_square = size[0] == size[1] > 0
            return size if is_square and not getattr(step, 'keep_ratio', False) else None
    return None
