"""Tests that every split labels its classes as training does, and that data fit the model.

All images of a class have one gray, which the model maps to the label of the class in training. The
accuracy on every split is therefore 100 %, whatever classes the split lacks.
"""

import json
import tarfile
import uuid

import numpy as np
import pytest
import torch
from mae_plugin.data import IndexedImages
from mae_plugin.data.sources.classes import renumber
from mae_plugin.engine.hooks.class_names import share_classes
from mae_plugin.engine.loops.sampler import SeededDataset
from mmengine.config import Config
from mmengine.dataset import ConcatDataset, RepeatDataset
from mmengine.logging import MMLogger
from mmengine.model import BaseModel
from mmengine.runner import Runner
from mmpretrain import get_model
from mmpretrain.registry import MODELS
from PIL import Image

from ...conftest import ROOT, tiny_config

GRAYS = dict(a=20, b=70, c=120, d=170)
FINETUNE = ROOT / 'configs/mae/small_data/vit-mini-p8_1xb128-coslr-8e_64px.py'


@MODELS.register_module()
class TellsGrays(BaseModel):
    """Classifies the grays of the classes a, b and c, which have the labels 0, 1 and 2."""

    def __init__(self, num_classes=3, data_preprocessor=None, img_size=32):
        super().__init__(
            data_preprocessor=dict(type='ClsDataPreprocessor', num_classes=num_classes)
        )
        self.head = torch.nn.Module()
        self.head.num_classes = num_classes
        self.backbone = torch.nn.Linear(1, 1)
        self.backbone.img_size = img_size

    def forward(self, inputs, data_samples=None, mode='tensor'):
        if mode == 'loss':
            return dict(loss=self.backbone.weight.sum())
        # (B, 3, H, W) -> (B,)
        classes = ((inputs.float().mean(dim=(1, 2, 3)) - 20) / 50).round().long()
        for sample, number in zip(data_samples, classes, strict=True):
            sample.set_pred_score(
                torch.nn.functional.one_hot(number, max(4, self.head.num_classes)).float()
            )
        return data_samples


def write_class(folder, name, number=4):
    folder.mkdir(parents=True, exist_ok=True)
    for i in range(number):
        Image.fromarray(np.full((32, 32, 3), GRAYS[name], np.uint8)).save(folder / f'{name}{i}.png')


def as_folder(root, part, classes):
    for name in classes:
        write_class(root / part / name, name)
    return dict(data_prefix=part)


def as_tar(root, part, classes):
    """Writes a tar file whose labels are words in ``.cls`` members; its folders are no classes."""
    (root / part).mkdir(parents=True)
    for name in classes:
        write_class(root / f'{part}-images', name)
    with tarfile.open(root / part / '0.tar', 'w') as file:
        for path in sorted((root / f'{part}-images').iterdir()):
            file.add(path, path.name)
            label = path.with_suffix('.cls')
            label.write_text(path.name[0])
            file.add(label, label.name)
    return dict(data_prefix=part)


def as_list(root, part, classes):
    """Writes a JSON file whose labels are words."""
    for name in classes:
        write_class(root / part, name)
    labels = {path.name: path.name[0] for path in sorted((root / part).iterdir())}
    (root / f'{part}.json').write_text(json.dumps(labels))
    return dict(data_prefix=part, ann_file=f'{part}.json')


SOURCES = [as_folder, as_tar, as_list]


@pytest.fixture(autouse=True)
def without_environment(monkeypatch):
    """Skips mmengine's query of compiler versions, which takes longer than the runs."""
    monkeypatch.setattr(Runner, '_log_env', lambda *_: None)


@pytest.fixture
def make(tmp_path):
    """Builds the Runner of a shipped config on these datasets, without other changes."""

    def build(train=None, val=None, test=None, model=None, **changes) -> Runner:
        cfg = Config.fromfile(FINETUNE)
        cfg.model = dict(type='TellsGrays', **(model or {}))
        for name, dataset in dict(train=train, val=val, test=test).items():
            loader = cfg[f'{name}_dataloader']
            if dataset is None:
                cfg[f'{name}_dataloader'] = cfg[f'{name}_cfg'] = None
                if name != 'train':
                    cfg[f'{name}_evaluator'] = None
                continue
            loader.update(num_workers=0, persistent_workers=False, batch_size=4)
            loader.dataset.update({'data_root': str(tmp_path), **dataset})
            loader.dataset.pipeline[0].scale = 32
        if train is None:
            cfg.optim_wrapper = cfg.param_scheduler = cfg.auto_scale_lr = None
        else:
            cfg.train_cfg.update(max_epochs=1, val_interval=1)
            cfg.optim_wrapper = dict(optimizer=dict(type='SGD', lr=0.1))
            cfg.auto_scale_lr = None
            cfg.param_scheduler = []
        cfg.work_dir = str(tmp_path / 'work' / uuid.uuid4().hex)
        cfg.experiment_name = uuid.uuid4().hex
        cfg.merge_from_dict(changes)
        return Runner.from_cfg(cfg)

    return build


@pytest.fixture
def messages(monkeypatch):
    """Collects the log of the present run."""

    texts = []
    original = MMLogger.callHandlers
    monkeypatch.setattr(
        MMLogger,
        'callHandlers',
        lambda self, record: texts.append(record.getMessage()) or original(self, record),
    )
    return texts


def accuracy(runner) -> float:
    return runner.message_hub.get_scalar('val/accuracy/top1').current()


@pytest.mark.parametrize('source', SOURCES)
def test_a_class_that_is_absent(tmp_path, make, messages, source):
    """Without b in ``val/`` or a in ``test/``, c was 1: accuracies of 0 to 67 % were reported."""
    train = source(tmp_path, 'train', 'abc')
    val, test = source(tmp_path, 'val', 'ac'), source(tmp_path, 'test', 'bc')
    runner = make(train, val)
    runner.train()
    assert accuracy(runner) == 100
    assert 'val_dataloader has no image of 1 of the 3 classes of training: b.' in messages
    for metainfo in (runner.val_evaluator.dataset_meta, runner.visualizer.dataset_meta):
        assert tuple(metainfo['classes']) == ('a', 'b', 'c')

    checkpoint = f'{runner.work_dir}/epoch_1.pth'
    runner = make(test=test, load_from=checkpoint)
    assert runner.test()['accuracy/top1'] == 100
    assert 'test_dataloader has no image of 1 of the 3 classes of the checkpoint: a.' in messages
    assert tuple(runner.test_evaluator.dataset_meta['classes']) == ('a', 'b', 'c')
    runner = make(val=test, load_from=checkpoint)
    assert runner.val()['accuracy/top1'] == 100


@pytest.mark.parametrize('source', SOURCES)
def test_a_class_too_many(tmp_path, make, source):
    """A class of ``val/`` that comes first in the alphabet shifted all other labels."""
    train, val = source(tmp_path, 'train', 'bc'), source(tmp_path, 'val', 'abc')
    with pytest.raises(
        ValueError,
        match=r"val has images of the classes \['a'\], which are not among the 2 of train",
    ):
        make(train, val).train()


def test_from_a_checkpoint_to_a_class_too_many(tmp_path, make):
    runner = make(as_folder(tmp_path, 'train', 'bc'), model=dict(num_classes=2))
    runner.train()
    test = as_folder(tmp_path, 'test', 'abc')
    with pytest.raises(
        ValueError,
        match=r"the classes \['a'\], which are not among the 2 of the checkpoint \(b, c\)",
    ):
        make(test=test, load_from=f'{runner.work_dir}/epoch_1.pth').test()


def test_training_that_resumes_keeps_the_numbers(tmp_path, make):
    """A class folder that was added since then shifted the labels of the resumed weights."""
    train, val = as_folder(tmp_path, 'train', 'bc'), as_folder(tmp_path, 'val', 'c')
    runner = make(train, val)
    runner.train()
    settings = {
        'load_from': f'{runner.work_dir}/epoch_1.pth',
        'resume': True,
        'train_cfg.max_epochs': 2,
    }
    again = make(train, val, **settings)
    again.train()
    assert again.val_dataloader.dataset.get_gt_labels().tolist() == [1] * 4
    write_class(tmp_path / 'train' / 'a', 'a')
    with pytest.raises(
        ValueError, match=r"the classes \['a'\], which are not among the 2 of the checkpoint"
    ):
        make(train, val, **settings).train()
    # Weights that are only started from bring no classes with them.
    fresh = make(train, val, load_from=settings['load_from'])
    fresh.train()
    assert fresh.train_dataloader.dataset.metainfo['classes'] == ('a', 'b', 'c')
    assert fresh.val_dataloader.dataset.get_gt_labels().tolist() == [2] * 4


def test_in_wrappers(tmp_path, make):
    train, val = as_folder(tmp_path, 'train', 'abc'), as_folder(tmp_path, 'val', 'ac')
    runner = make(train, val)
    inner = dict(runner.cfg.val_dataloader.dataset)
    wrapped = dict(
        _delete_=True,
        type='RepeatDataset',
        times=2,
        dataset=dict(type='ConcatDataset', datasets=[inner]),
    )
    runner = make(train, val, **{'val_dataloader.dataset': wrapped})
    runner.train()
    assert accuracy(runner) == 100
    assert tuple(runner.val_dataloader.dataset.metainfo['classes']) == ('a', 'b', 'c')


def test_parts_of_a_wrapper(tmp_path):
    """One part has the labels of training, and the next part has others."""
    prefixes = [
        as_folder(tmp_path, part, classes) for part, classes in (('one', 'abc'), ('two', 'ac'))
    ]
    parts = [IndexedImages(str(tmp_path), with_label=True, **prefix) for prefix in prefixes]
    dataset = ConcatDataset(parts, ignore_keys=['classes'])
    share_classes(SeededDataset(dataset), 'abc', 'val_dataloader', 'training')
    assert parts[1].get_gt_labels().tolist() == [0] * 4 + [2] * 4
    assert dataset.get_data_info(15)['gt_label'] == 0 and dataset.get_data_info(16)['gt_label'] == 2
    last = IndexedImages(str(tmp_path), with_label=True, **prefixes[1])
    repeated = RepeatDataset(last, times=2)
    share_classes(SeededDataset(repeated), 'abc', 'val_dataloader', 'training')
    assert last.get_gt_labels().tolist() == [0] * 4 + [2] * 4 and repeated.metainfo['classes'] == (
        'a',
        'b',
        'c',
    )


@pytest.mark.parametrize('source', SOURCES)
def test_the_probe(tmp_path, source):
    """Compares images and bank: 25 and 10 % were reported instead of 30 and 50 %."""
    bank, val = source(tmp_path, 'train', 'abc'), source(tmp_path, 'val', 'ac')

    def probe() -> dict:
        cfg = Config.fromfile(
            ROOT / 'configs/mae/small_data/mae_vit-mini-p8_1xb128-coslr-20e_64px.py'
        )
        cfg.model = dict(tiny_config(), data_preprocessor=cfg.model.data_preprocessor)
        loader = cfg.val_dataloader
        loader.update(num_workers=0, persistent_workers=False, batch_size=4)
        loader.dataset.update({'data_root': str(tmp_path), **val})
        loader.dataset.pipeline[0].scale = 32
        runner = Runner(
            model=cfg.model,
            work_dir=str(tmp_path / 'work'),
            val_dataloader=loader,
            val_cfg=dict(type='ProbeLoop', bank=bank, k=3),
            val_evaluator=[],
            default_scope='mmpretrain',
            experiment_name=uuid.uuid4().hex,
        )
        return runner.val()

    assert probe() == {'probe/knn_top1': 100, 'probe/linear_top1': 100}
    source(tmp_path / 'more', 'val', 'abcd')
    val |= dict(data_root=str(tmp_path / 'more'))
    bank |= dict(data_root=str(tmp_path))
    with pytest.raises(
        ValueError, match=r"the classes \['d'\], which are not among the 3 of val_cfg.bank"
    ):
        probe()


def test_names_that_are_given(tmp_path, make, messages):
    """Accepts other names for folders in the same order, and refuses another order."""
    train, val = as_folder(tmp_path, 'train', 'abc'), as_folder(tmp_path, 'val', 'abc')
    names = ['ant', 'bee', 'cat']
    runner = make(dict(train, classes=names), dict(val, classes=names))
    runner.train()
    assert accuracy(runner) == 100 and not [
        text for text in messages if text.startswith('No class name')
    ]
    test = as_folder(tmp_path, 'test', 'abc')
    assert (
        make(test=test, load_from=f'{runner.work_dir}/epoch_1.pth').test()['accuracy/top1'] == 100
    )
    assert any(
        text.startswith('No class name of test_dataloader is among those of the checkpoint')
        for text in messages
    )
    with pytest.raises(
        ValueError, match="val_dataloader labels the class 'c' 0, training 2; set val_dataloader"
    ):
        make(train, dict(val, classes=['c', 'b', 'a'])).train()
    with pytest.raises(
        ValueError, match=r"val_dataloader has the classes \['d'\], which training does not have"
    ):
        make(train, dict(val, classes=['a', 'b', 'c', 'd'])).train()


def test_another_dataset(tmp_path, make):
    """Refuses mmpretrain's own datasets, which label by folder and cannot adopt labels."""
    train, val = as_folder(tmp_path, 'train', 'abc'), as_folder(tmp_path, 'val', 'ac')
    loader = make(train, val).cfg.val_dataloader.dataset
    other = dict(_delete_=True, **{**loader, 'type': 'CustomDataset'})
    with pytest.raises(
        ValueError, match="labels the class 'c' 1, training 2; set val_dataloader.dataset.cl"
    ):
        make(train, val, **{'val_dataloader.dataset': other}).train()


def test_numbers_and_names(tmp_path, make):
    train, val = as_list(tmp_path, 'train', 'abc'), as_folder(tmp_path, 'val', 'abc')
    labels = json.loads((tmp_path / 'train.json').read_text())
    (tmp_path / 'train.json').write_text(
        json.dumps({name: 'abc'.index(label) for name, label in labels.items()})
    )
    with pytest.raises(
        ValueError, match='labels of train_dataloader are numbers, but val_dataloader names classes'
    ):
        make(train, val).train()
    # Numbers say themselves which class they are.
    named = as_folder(tmp_path / 'named', 'train', 'abc') | dict(data_root=str(tmp_path / 'named'))
    (tmp_path / 'val.json').write_text(json.dumps({'c/c0.png': 2, 'a/a0.png': 0}))
    runner = make(named, dict(val, ann_file='val.json'))
    runner.train()
    assert accuracy(runner) == 100
    (tmp_path / 'val.json').write_text(json.dumps({'c/c0.png': 3}))
    with pytest.raises(
        ValueError, match=r'has images of the classes \[3\], which are not among the 3 of training'
    ):
        make(named, dict(val, ann_file='val.json')).train()


def test_number_of_classes(tmp_path, make, messages):
    """Ten outputs for three classes logged nothing; two gave a traceback or wrong numbers."""
    train, val = as_folder(tmp_path, 'train', 'abc'), as_folder(tmp_path, 'val', 'abc')
    for split in (dict(train=train), dict(test=val), dict(val=val)):
        (name,) = split
        with pytest.raises(
            ValueError, match=f'{name}_dataloader has 3 classes, but model.head.num_classes is 2; s'
        ):
            runner = make(**split, model=dict(num_classes=2))
            getattr(runner, name)()
    make(train, model=dict(num_classes=10)).train()
    assert (
        'train_dataloader has 3 classes, fewer than model.head.num_classes, 10. Unless this '
        'is intended, set model.head.num_classes=3 data_preprocessor.num_classes=3.'
    ) in messages
    messages.clear()
    make(train).train()
    assert not [text for text in messages if 'num_classes' in text and 'fewer' in text]


def test_labels_that_are_mixed(tmp_path, make):
    train = as_folder(tmp_path, 'train', 'abc')
    runner = make(train)
    runner.model.data_preprocessor.num_classes, runner.model.data_preprocessor.batch_augments = (
        10,
        object(),
    )
    with pytest.raises(
        ValueError,
        match=r'data_preprocessor.num_classes is 10, but model.head.num_classes is 3, and',
    ):
        runner.train()


def test_size_of_the_crops(tmp_path, make, messages):
    """Training with ``img_size=96`` and crops of 32 logged nothing."""
    train = as_folder(tmp_path, 'train', 'abc')
    text = (
        'train_dataloader gives images of 32 x 32 pixels, but model.backbone.img_size is 96 x 96, '
        'so the position embedding is resized.'
    )
    make(train).train()
    assert not [line for line in messages if 'img_size is' in line]
    make(train, model=dict(img_size=96)).train()
    assert any(line.startswith(text) for line in messages)
    messages.clear()
    theirs = [
        dict(type='LoadImageFromFile'),
        dict(type='RandomResizedCrop', scale=32),
        dict(type='RandomFlip', prob=0.5),
        dict(type='PackInputs'),
    ]
    make(train, model=dict(img_size=96), **{'train_dataloader.dataset.pipeline': theirs}).train()
    assert any(line.startswith(text) for line in messages)


@pytest.mark.parametrize('workers', [0, 1])
@pytest.mark.parametrize('split', ['val', 'test'])
def test_images_that_cannot_be_one_batch(tmp_path, make, split, workers):
    """mmengine's evaluation loops raised torch's error, without the files."""
    prefix = as_folder(tmp_path, split, 'ab')
    Image.fromarray(np.zeros((32, 32, 4), np.uint8)).save(tmp_path / split / 'a' / 'a1.png')
    pipeline = [
        dict(type='LoadCenterCrop', scale=32, color_type='unchanged'),
        dict(type='PackInputs'),
    ]
    runner = make(
        **{split: dict(prefix, pipeline=pipeline)},
        **{f'{split}_dataloader.num_workers': workers},
    )
    messages = r'a0\.png has the shape \(3, 32, 32\) .*, \S*a1\.png has the shape \(4, 32, 32\)'
    with pytest.raises(ValueError, match=messages):
        getattr(runner, split)()


def test_images_that_cannot_be_one_batch_while_training(tmp_path, make):
    """mmengine's training loop names the files too."""
    prefix = as_folder(tmp_path, 'train', 'ab')
    Image.fromarray(np.zeros((32, 32, 4), np.uint8)).save(tmp_path / 'train' / 'a' / 'a1.png')
    pipeline = [
        dict(type='LoadRandomCrop', scale=32, color_type='unchanged'),
        dict(type='PackInputs'),
    ]
    loop = {'train_cfg.type': 'EpochBasedTrainLoop', 'train_dataloader.batch_size': 8}
    with pytest.raises(
        ValueError, match=r'has the shape \([34], 32, 32\) .* has the shape \([34], 32, 32\)'
    ):
        make(dict(prefix, pipeline=pipeline), **loop).train()


def test_models_keep_the_names_of_training(tmp_path, make):
    """Class names of ``get_model`` and inferencers do not depend on a validation folder."""
    runner = make(as_folder(tmp_path, 'train', 'abc'), as_folder(tmp_path, 'val', 'ac'))
    runner.train()
    model = get_model(runner.cfg, f'{runner.work_dir}/epoch_1.pth')
    assert tuple(model._dataset_meta['classes']) == ('a', 'b', 'c')


def test_renumber():
    assert renumber('ac', 'abc') == {0: 0, 1: 2}
    assert renumber('cab', 'abc') == {0: 2, 1: 0, 2: 1}
    assert renumber('ad', 'abc') == {0: 0}
    assert renumber('xyz', 'abc') == {0: 0, 1: 1, 2: 2}
    assert renumber('xy', 'abc') == {}


def test_folders_that_are_partly_among_the_names(tmp_path):
    """``['b', 'x']`` for the folders a and b made a the class b."""
    as_folder(tmp_path, 'train', 'ab')
    with pytest.raises(ValueError, match=r"labels that are not among its 2 classes: \['a'\]"):
        IndexedImages(str(tmp_path), data_prefix='train', with_label=True, classes=['b', 'x'])
