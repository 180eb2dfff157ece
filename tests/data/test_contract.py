"""``IndexedImages`` against mmpretrain's ``CustomDataset`` on the same images, for all methods."""

import copy
import pickle

import numpy as np
import pytest
from mae_plugin.data import IndexedImages
from mmengine.dataset import BaseDataset
from mmengine.registry import DATASETS
from mmpretrain.datasets import CustomDataset, KFoldDataset

from ..conftest import write_jpegs
from .test_indexed_images import pack


@pytest.fixture(scope='module')
def sources(tmp_path_factory):
    """Three classes of 4, 3 and 2 images as a folder, as a tar file, and a list of some."""
    root = tmp_path_factory.mktemp('contract')
    for number, name in enumerate('abc'):
        write_jpegs(root / 'tree' / name, 4 - number, seed=number)
    (root / 'tar').mkdir()
    pack(root / 'tree', root / 'tar' / '0.tar')
    paths = sorted(path.relative_to(root / 'tree') for path in (root / 'tree').rglob('*.jpg'))
    (root / 'list.txt').write_text(
        ''.join(f'{path} {"abc".index(path.parent.name)}\n' for path in paths[::-1])
    )
    return root


@pytest.fixture(params=['tree', 'tar', 'list'])
def pair(request, sources, tmp_path):
    """Returns the plugin's dataset and mmpretrain's."""

    def make(**settings) -> tuple[IndexedImages, CustomDataset]:
        listed = (
            dict(ann_file=str(sources / 'list.txt'), classes=['a', 'b', 'c'])
            if request.param == 'list'
            else {}
        )
        folder = sources / ('tar' if request.param == 'tar' else 'tree')
        own = IndexedImages(
            str(folder), with_label=True, index_dir=str(tmp_path), **listed, **settings
        )
        prefix = (
            dict(data_root=str(sources / 'tree'))
            if not listed
            else dict(data_prefix=str(sources / 'tree'))
        )
        return own, CustomDataset(
            **prefix, with_label=True, serialize_data=False, **listed, **settings
        )

    return make


def seen(dataset) -> list[tuple[str, int, int]]:
    """Returns the end of the path, label and index of every image."""
    infos = [dataset.get_data_info(i) for i in range(len(dataset))]
    return [
        ('/'.join(info['img_path'].split('/')[-2:]), info['gt_label'], info['sample_idx'])
        for info in infos
    ]


SUBSETS = [3, 0, -2, 100, [1, 2], [8, 8, 0], [-1, 3], [], range(2, 7, 2)]


def test_subsets(pair):
    """``get_subset(3)`` gave all images, and lists of indices failed."""
    own, other = pair()
    expected = seen(other)
    assert len(expected) == 9 and seen(own) == expected
    for indices in SUBSETS:
        assert seen(own.get_subset(indices)) == seen(other.get_subset(indices)), indices
        parts = [copy.deepcopy(dataset) for dataset in (own, other)]
        for part in parts:
            part.get_subset_(indices)
        assert seen(parts[0]) == seen(parts[1]), indices
    assert seen(own.get_subset([8, 2, 5]).get_subset([2, 0])) == seen(other.get_subset([5, 8]))
    assert seen(own) == expected, 'a subset changes nothing of the whole'
    for indices in (-2, 4, [3, 0]):
        own_part, other_part = pair(indices=indices)
        assert seen(own_part) == seen(other_part) and len(own_part.load_data_list()) == 9


def test_subsets_by_numpy(pair):
    own, _ = pair()
    assert seen(own.get_subset(np.array([1, 2]))) == seen(own.get_subset([1, 2]))
    assert len(own.get_subset(np.int64(4))) == 4
    for wrong in ([9], [-10]):
        with pytest.raises(
            IndexError, match=r'indices go from -?\d+ to -?\d+, but there are 9 images'
        ):
            own.get_subset(wrong)
    for wrong in ([0.5], [True, False], 'ab', None):
        with pytest.raises(TypeError, match='must be a number of images or a sequence of integers'):
            own.get_subset(wrong)


def test_a_subset_shares_the_index(pair):
    own, _ = pair()
    for part in (own.get_subset([4, 1]), copy.deepcopy(own), copy.copy(own)):
        assert (
            part.data_list.names is own.data_list.names
            and part.data_list.arrays is own.data_list.arrays
        )
    assert own.get_subset(2).pipeline is not own.pipeline


def test_labels(pair):
    own, other = pair()
    assert own.get_gt_labels().tolist() == other.get_gt_labels().tolist()
    assert (
        own.get_subset([8, 0]).get_gt_labels().tolist()
        == other.get_subset([8, 0]).get_gt_labels().tolist()
    )
    assert [own.get_cat_ids(i) for i in (0, 8, -1)] == [other.get_cat_ids(i) for i in (0, 8, -1)]
    assert own.CLASSES == ('a', 'b', 'c') or own.CLASSES == ['a', 'b', 'c']
    assert own.class_to_idx == other.class_to_idx == dict(a=0, b=1, c=2)
    assert own.metainfo['classes'] == own.CLASSES and own.metainfo is not own.metainfo


def test_the_list_of_all(pair):
    """``data_list`` was empty and ``load_data_list()`` failed."""
    own, other = pair()
    for mine, theirs in (
        (own.data_list, other.data_list),
        (own.load_data_list(), other.load_data_list()),
    ):
        assert len(mine) == len(theirs) == 9
        assert [info['gt_label'] for info in mine] == [info['gt_label'] for info in theirs]
        assert [info['img_path'][-9:] for info in mine[2:4]] == [
            info['img_path'][-9:] for info in theirs[2:4]
        ]
    assert len(own.filter_data()) == 9
    own.data_list = own.data_list[:5]
    assert len(own) == 5


def test_methods_that_are_overridden(sources, tmp_path):
    """All ways in which mmengine derives a dataset from another."""

    class Even(IndexedImages):
        def load_data_list(self):
            return [info | dict(note=1) for info in super().load_data_list()]

        def filter_data(self):
            return [
                info for info in self.data_list if info['gt_label'] != self.filter_cfg['without']
            ]

    dataset = Even(
        str(sources / 'tree'), with_label=True, index_dir=str(tmp_path), filter_cfg=dict(without=1)
    )
    assert dataset.get_gt_labels().tolist() == [0, 0, 0, 0, 2, 2]
    assert dataset.get_data_info(4)['note'] == 1 and dataset.get_subset(
        [5, 0]
    ).get_gt_labels().tolist() == [2, 0]
    dataset.number_like(['c', 'a', 'b'], 'training')
    assert dataset.get_gt_labels().tolist() == [1, 1, 1, 1, 0, 0]


def test_copies(pair):
    """Pickled datasets, which spawned workers receive, hold no open file."""
    own, _ = pair()
    before = seen(own)
    for again in (pickle.loads(pickle.dumps(own)), copy.deepcopy(own), copy.copy(own)):
        assert seen(again) == before and seen(again.get_subset([7, 3])) == seen(
            own.get_subset([7, 3])
        )
    assert len(pickle.loads(pickle.dumps(own)).data_list._open_files) == 0


def test_lazily(pair):
    own, other = pair(lazy_init=True)
    assert not own._fully_initialized and own.metainfo.get('classes') == other.metainfo.get(
        'classes'
    )
    assert len(own.get_subset([1])) == 1 and own._fully_initialized
    assert str(own).split('\n')[:3] == str(pair()[0]).split('\n')[:3]


def test_copies_are_of_what_is_there_now(pair):
    """mmengine remembers copies by ids of deleted objects, so subsets got another's pipeline."""
    own, _ = pair()
    known = BaseDataset._copy_without_annotation.__defaults__[0]
    if known is not None:
        known[id(own.pipeline)] = 'a copy of something else'
    subset = own.get_subset([1])
    assert subset.pipeline is not own.pipeline and type(subset.pipeline) is type(own.pipeline)


WRAPPERS = [
    lambda dataset: dict(type='ConcatDataset', datasets=[dataset, dataset]),
    lambda dataset: dict(type='RepeatDataset', dataset=dataset, times=3),
    lambda dataset: dict(type='ClassBalancedDataset', dataset=dataset, oversample_thr=0.5),
    *(
        lambda dataset, fold=fold, test_mode=test_mode: dict(
            type='mmpretrain.KFoldDataset',
            dataset=dataset,
            fold=fold,
            num_splits=4,
            seed=3,
            test_mode=test_mode,
        )
        for fold in (0, 3)
        for test_mode in (True, False)
    ),
]


@pytest.mark.parametrize('wrap', WRAPPERS)
def test_in_wrappers(sources, tmp_path, wrap):
    settings = dict(data_root=str(sources / 'tree'), with_label=True)
    own = dict(type='mmpretrain.IndexedImages', index_dir=str(tmp_path), **settings)
    wrapped, other = (
        DATASETS.build(wrap(own)),
        DATASETS.build(wrap(dict(type='mmpretrain.CustomDataset', **settings))),
    )
    assert len(wrapped) == len(other) > 0
    for i in range(len(wrapped)):
        mine, theirs = wrapped.get_data_info(i), other.get_data_info(i)
        assert (mine['img_path'], mine['gt_label']) == (theirs['img_path'], theirs['gt_label'])
        assert wrapped[i]['img_path'] == theirs['img_path']
    assert tuple(wrapped.metainfo['classes']) == ('a', 'b', 'c')


def test_every_image_is_in_one_fold(pair):
    own, _ = pair()
    config = dict(
        type='mmpretrain.IndexedImages',
        data_root=own.data_root,
        with_label=True,
        ann_file=own.ann_file,
    )
    folds = [
        KFoldDataset(config, fold=fold, num_splits=3, test_mode=True, seed=0) for fold in range(3)
    ]
    assert sorted(path for fold in folds for path, *_ in seen(fold)) == sorted(
        path for path, *_ in seen(own)
    )


def test_without_labels(sources, tmp_path):
    dataset = IndexedImages(str(sources / 'tree'), index_dir=str(tmp_path))
    assert len(dataset.get_subset([3, 1])) == 2 and 'gt_label' not in dataset.data_list[0]
    with pytest.raises(ValueError, match='were listed without labels; set with_label=True'):
        dataset.get_cat_ids(0)
