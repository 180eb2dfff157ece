"""Data that does not fit the model, or the other datasets of the run, is refused or reported before
the first step.
"""

from __future__ import annotations

import logging

from mmcv.transforms import CenterCrop, Resize
from mmengine.hooks import Hook
from mmengine.logging import print_log
from mmengine.model import BaseTTAModel, is_model_wrapper
from mmengine.runner import Runner
from mmpretrain.datasets import RandomResizedCrop
from torch import nn
from torch.utils.data import DataLoader, Dataset

from ...data import LoadCenterCrop, LoadRandomCrop
from ...data.collate import CheckedCollate
from ...models.patches import to_pair
from ...utils._compat.mmengine import built_loop, is_resuming
from .class_names import class_names, indexed_images, layers, share_classes


class DataFitHook(Hook):
    """Numbers the classes of all splits as training does, and compares the data with the model.

    Folders, annotations and labels in tar files are numbered within one dataset. Where ``val/``
    lacks a class of ``train/``, all later ones would be shifted. In training the classes of
    ``train_dataloader`` hold for every other split; in evaluation, and where training resumes,
    those that the checkpoint names.

    Refuses a dataset with more classes than ``model.head.num_classes``. Reports one with fewer, and
    training crops of another size than ``model.backbone.img_size``, which is allowed: the position
    embedding is resized.

    Raises:
        ValueError: for an unknown class, classes in another order, or more of them than the model
            has.
    """

    def before_run(self, runner: Runner) -> None:
        """Hands the classes of training to the other splits, and checks what data loaders put into
        batches.
        """
        for name in ('train', 'val', 'test'):
            if (loop := built_loop(runner, name)) is not None:
                _check_batches(loop.dataloader)
        if built_loop(runner, 'train') is not None:
            train = runner.train_dataloader.dataset
            if classes := class_names(train):
                _share(runner, classes, 'training')
            elif any(part.with_label for part in indexed_images(train)):
                _refuse_names(runner)

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Hands the classes of a checkpoint to the dataset that it is evaluated on, or trained
        further on.
        """
        trains = built_loop(runner, 'train') is not None
        if trains and not is_resuming(runner):
            return
        meta = checkpoint.get('meta') or {}
        # Older versions of mmpretrain wrote the names in capitals.
        classes = (meta.get('dataset_meta') or {}).get('classes') or meta.get('CLASSES')
        if not classes or not all(isinstance(name, str) for name in classes):
            return
        if trains:
            share_classes(
                runner.train_dataloader.dataset, classes, 'train_dataloader', 'the checkpoint'
            )
        _share(runner, classes, 'the checkpoint')

    def before_train(self, runner: Runner) -> None:
        """Compares the number of classes and the size of the crops with the model."""
        model, train = _core(runner), runner.train_dataloader.dataset
        _check_num_classes(model, train, 'train_dataloader')
        _check_mixing(model)
        if built_loop(runner, 'val') is not None:
            _check_num_classes(model, runner.val_dataloader.dataset, 'val_dataloader')
        _check_size(model, train)

    def before_val(self, runner: Runner) -> None:
        """Compares the number of classes with the model."""
        if built_loop(runner, 'train') is None:
            _check_num_classes(_core(runner), runner.val_dataloader.dataset, 'val_dataloader')

    def before_test(self, runner: Runner) -> None:
        """Compares the number of classes with the model."""
        _check_num_classes(_core(runner), runner.test_dataloader.dataset, 'test_dataloader')


def _check_batches(loader: object) -> None:
    """Makes a data loader name the files of images that cannot be one batch."""
    if isinstance(loader, DataLoader) and not isinstance(loader.collate_fn, CheckedCollate):
        loader.collate_fn = CheckedCollate(loader.collate_fn)


def _core(runner: Runner) -> nn.Module:
    model = runner.model
    while is_model_wrapper(model) or isinstance(model, BaseTTAModel):
        model = model.module
    return model


def _share(runner: Runner, classes: tuple[str, ...], origin: str) -> None:
    for name in ('val', 'test'):
        loop = built_loop(runner, name)
        if loop is None:
            continue
        dataset = loop.dataloader.dataset
        share_classes(dataset, classes, f'{name}_dataloader', origin)
        if bank := getattr(loop, 'bank', None):
            share_classes(bank.dataset, classes, f'{name}_cfg.bank', origin)
        if hasattr(dataset, 'metainfo'):
            loop.evaluator.dataset_meta = runner.visualizer.dataset_meta = dataset.metainfo


def _refuse_names(runner: Runner) -> None:
    """Raises ValueError if a split has class names though the labels of training are numbers."""
    for name in ('val', 'test'):
        loop = built_loop(runner, name)
        if loop is not None and (names := class_names(loop.dataloader.dataset)):
            raise ValueError(
                f'the labels of train_dataloader are numbers, but {name}_dataloader names classes '
                f'({names[0]}, …); '
                f'give {name}_dataloader numbers, or train_dataloader.dataset names'
            )


def _check_num_classes(model: nn.Module, dataset: Dataset, setting: str) -> None:
    most = getattr(getattr(model, 'head', None), 'num_classes', None)
    number = _num_classes(dataset)
    if not isinstance(most, int) or number is None or number == most:
        return
    remedy = f'set model.head.num_classes={number} data_preprocessor.num_classes={number}'
    if number > most:
        raise ValueError(
            f'{setting} has {number} classes, but model.head.num_classes is {most}; {remedy}'
        )
    text = f'{setting} has {number} classes, fewer than model.head.num_classes, {most}. If that is not meant, {remedy}.'
    print_log(text, logger='current', level=logging.WARNING)


def _check_mixing(model: nn.Module) -> None:
    """Raises ValueError if labels that are mixed are of another length than predictions."""
    preprocessor = getattr(model, 'data_preprocessor', None)
    wanted = getattr(getattr(model, 'head', None), 'num_classes', None)
    number = getattr(preprocessor, 'num_classes', None)
    mixes = getattr(preprocessor, 'batch_augments', None) is not None
    if mixes and isinstance(wanted, int) and isinstance(number, int) and number != wanted:
        raise ValueError(
            f'data_preprocessor.num_classes is {number}, but model.head.num_classes is {wanted}, '
            'and Mixup and CutMix '
            f'need both; set data_preprocessor.num_classes={wanted}'
        )


def _num_classes(dataset: Dataset) -> int | None:
    if names := class_names(dataset):
        return len(names)
    labeled = [part for part in indexed_images(dataset) if part.with_label]
    return max((int(part.get_gt_labels().max()) + 1 for part in labeled if len(part)), default=None)


def _check_size(model: nn.Module, dataset: Dataset) -> None:
    backbone = getattr(model, 'backbone', None)
    own, size = getattr(backbone, 'img_size', None), _crop_size(dataset)
    if own is None or size is None or to_pair(own) == size:
        return
    (height, width), (h, w) = to_pair(own), size
    text = (
        f'train_dataloader gives images of {h} x {w} pixels, but model.backbone.img_size is '
        f'{height} x {width}, so the '
        'position embedding is resized. If that is not meant, set model.backbone.img_size or the '
        'scale in '
        'train_dataloader.dataset.pipeline.'
    )
    print_log(text, logger='current', level=logging.WARNING)


def _crop_size(dataset: Dataset) -> tuple[int, int] | None:
    """The height and width that the pipeline of a dataset ends with, None if they are not known."""
    pipelines = [part.pipeline for part in layers(dataset) if hasattr(part, 'pipeline')]
    for step in reversed(getattr(pipelines[0], 'transforms', [])) if pipelines else ():
        if isinstance(step, (LoadRandomCrop, LoadCenterCrop)):
            return tuple(step.scale)
        if isinstance(step, (RandomResizedCrop, CenterCrop, Resize)):
            size = to_pair(getattr(step, 'crop_size', None) or step.scale or 0)
            # Libraries disagree on whether the width comes first.
            return (
                size if size[0] == size[1] > 0 and not getattr(step, 'keep_ratio', False) else None
            )
    return None
