"""Folder trees and tar files as sources: equal images, changes, and labels of all kinds."""

import errno
import fcntl
import io
import json
import os
import pickle
import tarfile
import time

import numpy as np
import pytest
import torch
from mae_plugin.data import IndexedImages
from mae_plugin.data.sources import folder as folder_module
from mae_plugin.data.sources.index import Names
from mae_plugin.utils.locks import FileLock
from mmengine.registry import DATASETS

from ..conftest import write_jpegs


@pytest.fixture
def tree(tmp_path):
    """Two classes, one of them with a folder inside, and files that are not images."""
    root = tmp_path / 'tree'
    write_jpegs(root / 'cat', 3)
    write_jpegs(root / 'dog' / 'small ones', 2, seed=1)
    (root / 'dog' / 'notes.txt').write_text('no image')
    (root / 'dog' / '._000.jpg').write_bytes(b'what macOS leaves behind')
    settle(root)
    return root


def settle(root):
    """Dates every folder back, so that the index may rely on the dates."""
    for folder, _, _ in os.walk(root):
        os.utime(folder, (time.time() - 100,) * 2)


def pack(root, path, members=None):
    """Packs files of a folder into a tar file, in alphabetical order, with further members."""
    with tarfile.open(path, 'w') as file:
        for member in sorted(root.rglob('*.jpg')):
            file.add(member, member.relative_to(root))
        for name, content in (members or {}).items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            file.addfile(info, io.BytesIO(content))
    return path


def names(dataset) -> list[str]:
    return [dataset.get_data_info(i)['img_path'] for i in range(len(dataset))]


def labels(dataset) -> list[int]:
    return [dataset.get_data_info(i)['gt_label'] for i in range(len(dataset))]


@pytest.fixture
def scans(monkeypatch):
    """Counts the scans of folders."""
    calls = []
    monkeypatch.setattr(
        folder_module,
        'scan_folder',
        lambda *args, _scan=folder_module.scan_folder: calls.append(1) or _scan(*args),
    )
    return calls


def test_names_are_kept_whole():
    words = ['', 'a', 'Ünïcödé/日本', 'not UTF-8: \udcff', 'z' * 300, '']
    kept = Names(*Names.arrays(words))
    assert [kept[i] for i in range(len(kept))] == words
    assert len(Names(*Names.arrays([]))) == 0


def test_a_tree(tree, tmp_path):
    dataset = IndexedImages(str(tree), index_dir=str(tmp_path))
    expected = [
        'cat/000.jpg',
        'cat/001.jpg',
        'cat/002.jpg',
        'dog/small ones/000.jpg',
        'dog/small ones/001.jpg',
    ]
    assert names(dataset) == [str(tree / name) for name in expected]
    assert 'gt_label' not in dataset.get_data_info(0)
    assert dataset.get_data_info(-1)['sample_idx'] == 4
    with pytest.raises(IndexError):
        dataset.get_data_info(5)
    labeled = IndexedImages(str(tree), with_label=True, index_dir=str(tmp_path))
    assert labels(labeled) == [0, 0, 0, 1, 1] and labeled.CLASSES == ('cat', 'dog')
    assert (
        len(IndexedImages(str(tree.parent), data_prefix='tree/cat', index_dir=str(tmp_path))) == 3
    )


def test_some_of_the_images(tree, tmp_path):
    first = IndexedImages(str(tree), indices=4, with_label=True, index_dir=str(tmp_path))
    assert len(first) == 4 and labels(first) == [0, 0, 0, 1]
    some = IndexedImages(str(tree), indices=[4, 0], with_label=True, index_dir=str(tmp_path))
    assert names(some) == [
        str(tree / 'dog/small ones/001.jpg'),
        str(tree / 'cat/000.jpg'),
    ] and labels(some) == [1, 0]


def test_the_index_is_used_again_until_the_folder_changes(tree, tmp_path, scans):
    def number() -> int:
        return len(IndexedImages(str(tree), index_dir=str(tmp_path)))

    assert [number(), number(), len(scans)] == [5, 5, 1]
    write_jpegs(tree / 'dog' / 'small ones' / 'new', 1)
    assert [number(), len(scans)] == [6, 2]
    # A folder may change again within the same tick of the clock.
    assert [number(), len(scans)] == [6, 3]
    settle(tree)
    assert [number(), number(), len(scans)] == [6, 6, 4]
    (tree / 'cat' / '001.jpg').unlink()
    assert [number(), len(scans)] == [5, 5]


def test_a_damaged_index_is_made_anew(tree, tmp_path, scans):
    IndexedImages(str(tree), index_dir=str(tmp_path / 'index'))
    (index,) = (tmp_path / 'index').glob('*.safetensors')
    index.write_bytes(index.read_bytes()[:100])
    assert len(IndexedImages(str(tree), index_dir=str(tmp_path / 'index'))) == 5 and len(scans) == 2


def test_without_a_place_for_the_index(tree, tmp_path, monkeypatch):
    """In a folder that cannot be made, and on a file system without locks."""
    (tmp_path / 'file').write_text('')
    assert len(IndexedImages(str(tree), index_dir=str(tmp_path / 'file' / 'below'))) == 5

    def without_locks(*_) -> None:
        raise OSError(errno.ENOSYS, 'Function not implemented')

    monkeypatch.setattr(fcntl, 'flock', without_locks)
    assert len(IndexedImages(str(tree), index_dir=str(tmp_path))) == 5 and not list(
        tmp_path.glob('*.safetensors')
    )


def test_no_room_for_the_index(tree, tmp_path, monkeypatch):
    """A full disk ended the run, although the index only saves time."""

    def full(*_) -> None:
        raise OSError(errno.ENOSPC, 'No space left on device')

    logged = []
    monkeypatch.setattr(os, 'fsync', full)
    monkeypatch.setattr(
        'mae_plugin.data.sources.index.print_log', lambda text, **_: logged.append(text)
    )
    assert len(IndexedImages(str(tree), index_dir=str(tmp_path / 'index'))) == 5
    assert len(logged) == 1 and logged[0].startswith(f'The index of {tree} ')
    assert logged[0].endswith(
        'could not be written ([Errno 28] No space left on device); going on without it.'
    )
    assert [path.suffix for path in (tmp_path / 'index').iterdir()] == ['.lock']


def test_holder_of_the_index_lock_is_logged(tree, tmp_path, monkeypatch):
    """A process that waited for the index of another one logged nothing."""
    IndexedImages(str(tree), index_dir=str(tmp_path / 'index'))
    (index,) = (tmp_path / 'index').glob('*.safetensors')
    other, logged = FileLock(index.with_suffix('.lock')), []

    def note(text: str, **_) -> None:
        logged.append(text)
        other.release()

    monkeypatch.setattr('mae_plugin.utils.locks.PATIENCE', 0)
    monkeypatch.setattr('mae_plugin.data.sources.index.print_log', note)
    other.acquire()
    assert len(IndexedImages(str(tree), index_dir=str(tmp_path / 'index'))) == 5
    assert (
        len(logged) == 1
        and logged[0].startswith(f'Waiting for process {os.getpid()} on ')
        and str(tree) in logged[0]
    )


def test_links(tree, tmp_path):
    """Links are followed, but not in circles."""
    (tree / 'cat' / 'circle').symlink_to(tree)
    (tree / 'linked').symlink_to(tree / 'cat')
    found = names(IndexedImages(str(tree), index_dir=str(tmp_path)))
    assert len(found) == 8 and str(tree / 'linked/000.jpg') in found


def test_shards_hold_the_same(tree, tmp_path):
    shards = tmp_path / 'shards'
    shards.mkdir()
    pack(tree / 'cat', shards / '0.tar')
    pack(tree, shards / '1.tar')
    dataset = IndexedImages(str(shards), index_dir=str(tmp_path))
    infos = [dataset.get_data_info(i) for i in range(len(dataset))]
    assert [info['img_path'] for info in infos[:3]] == [
        str(shards / f'0.tar/00{i}.jpg') for i in range(3)
    ]
    assert infos[3]['img_path'] == str(shards / '1.tar/cat/000.jpg')
    for info, name in zip(infos[3:], sorted(tree.rglob('0*.jpg')), strict=True):
        assert info['img_bytes'] == name.read_bytes()
    one = IndexedImages(str(shards), data_prefix='1.tar', with_label=True, index_dir=str(tmp_path))
    assert labels(one) == [0, 0, 0, 1, 1] and one.CLASSES == ('cat', 'dog')


def test_shards_are_indexed_again_when_they_change(tree, tmp_path):
    path = pack(tree / 'cat', tmp_path / 'a.tar')
    assert len(IndexedImages(str(path), index_dir=str(tmp_path))) == 3
    pack(tree, path)
    assert len(IndexedImages(str(path), index_dir=str(tmp_path))) == 5


def test_labels_inside_shards(tree, tmp_path):
    """As in WebDataset; numbers stay numbers, names are numbered in alphabetical order."""
    numbered = {
        '000.cls': b'7',
        '001.cls': b'10\n',
        '002.json': b'{"label": 7, "caption": "a cat"}',
    }
    path = pack(tree / 'cat', tmp_path / 'a.tar', numbered)
    assert labels(IndexedImages(str(path), with_label=True, index_dir=str(tmp_path))) == [7, 10, 7]
    named = {f'00{i}.cls': word for i, word in enumerate([b'lion', b'cat', b'lion'])}
    path = pack(tree / 'cat', tmp_path / 'b.tar', named)
    dataset = IndexedImages(str(path), with_label=True, index_dir=str(tmp_path))
    assert labels(dataset) == [1, 0, 1] and dataset.CLASSES == ('cat', 'lion')
    broken = {'000.json': b'{"label": ', '001.cls': b'1', '002.cls': b'\xff'}
    path = pack(tree / 'cat', tmp_path / 'c.tar', broken)
    assert len(IndexedImages(str(path), index_dir=str(tmp_path))) == 3
    with pytest.raises(ValueError, match=r'2 images in .*c.tar have no label, such as 000.jpg'):
        IndexedImages(str(path), with_label=True, index_dir=str(tmp_path))


def test_images_whose_tar_file_is_gone(tree, tmp_path):
    """Training replaces them, and ends if there are too many; evaluation raises and names them."""
    shards = tmp_path / 'shards'
    shards.mkdir()
    for i in range(3):
        pack(tree, shards / f'{i}.tar')

    def opened(kind: str, **settings) -> IndexedImages:
        pipeline = [dict(type=kind, scale=16, **settings)]
        return IndexedImages(str(shards), index_dir=str(tmp_path), pipeline=pipeline)

    training, evaluation = opened('LoadRandomCrop', max_skipped=0.9), opened('LoadCenterCrop')
    strict = opened('LoadRandomCrop', max_skipped=0.2)
    (shards / '0.tar').unlink()
    os.truncate(shards / '2.tar', 600)
    assert all(training[i]['img'].shape == (16, 16, 3) for i in range(15))
    assert training.pipeline.transforms[0].skipped.skipped >= 10
    assert evaluation[5]['img'].shape == (16, 16, 3)
    with pytest.raises(FileNotFoundError, match=r'0\.tar/cat/000\.jpg does not exist'):
        evaluation[0]
    with pytest.raises(
        ValueError, match=r'2\.tar/cat/000\.jpg cannot be read .*2\.tar ends before byte \d+'
    ):
        evaluation[10]
    with pytest.raises(RuntimeError, match=r'images could not be read, more than the 20\.0%'):
        for _ in range(100):
            strict[0]


def test_annotations(tree, tmp_path):
    (tmp_path / 'list.txt').write_text('dog/small ones/001.jpg 3\n\ncat/002.jpg 0\n')
    (tmp_path / 'list.json').write_text(
        json.dumps({'dog/small ones/001.jpg': 'dog', 'cat/002.jpg': 'cat'})
    )
    (tmp_path / 'paths.txt').write_text('dog/small ones/001.jpg\ncat/002.jpg\n')
    settings = dict(data_root=str(tree), index_dir=str(tmp_path))
    expected = [str(tree / 'dog/small ones/001.jpg'), str(tree / 'cat/002.jpg')]
    for file, kind, numbers in (
        ('list.txt', True, [3, 0]),
        ('list.json', True, [1, 0]),
        ('paths.txt', False, None),
    ):
        dataset = IndexedImages(**settings, ann_file=str(tmp_path / file), with_label=kind)
        assert names(dataset) == expected
        assert numbers is None or labels(dataset) == numbers
    reordered = IndexedImages(
        **settings,
        ann_file=str(tmp_path / 'list.json'),
        with_label=True,
        classes=['dog', 'bird', 'cat'],
    )
    assert labels(reordered) == [0, 2]
    picked = IndexedImages(
        **settings, ann_file=str(tmp_path / 'list.txt'), with_label=True, indices=[1]
    )
    assert names(picked) == expected[1:] and labels(picked) == [0]


def test_class_names(tree, tmp_path):
    """Classes match folders by name, else in order."""
    settings = dict(data_root=str(tree), index_dir=str(tmp_path), with_label=True)
    assert labels(IndexedImages(**settings, classes=['dog', 'bird', 'cat'])) == [2, 2, 2, 0, 0]
    assert labels(IndexedImages(**settings, classes=['kitten', 'puppy'])) == [0, 0, 0, 1, 1]
    with pytest.raises(
        ValueError, match=r"labels that are not among its 3 classes: \['cat', 'dog'\]"
    ):
        IndexedImages(**settings, classes=['a', 'b', 'c'])


@pytest.mark.parametrize(
    ('prepare', 'settings', 'kind', 'message'),
    [
        (
            lambda root: None,
            dict(data_prefix='absent'),
            FileNotFoundError,
            'folder of images .*absent does not exist',
        ),
        (
            lambda root: (root / 'empty').mkdir(),
            dict(data_prefix='empty'),
            FileNotFoundError,
            'there is no image in',
        ),
        (
            lambda root: write_jpegs(root, 1),
            dict(with_label=True),
            ValueError,
            'lie in no class folder',
        ),
        (
            lambda root: (root / 'list').write_text('cat/9.jpg 0'),
            dict(ann_file='list', with_label=True),
            FileNotFoundError,
            '1 of the 1 images in .*list are not in .*, such as cat/9.jpg',
        ),
        (
            lambda root: (root / 'list').write_text('cat/000.jpg'),
            dict(ann_file='list', with_label=True),
            ValueError,
            "the line 'cat/000.jpg' of .*list has no label",
        ),
        *(
            (
                lambda root, text=text: (root / 'list.json').write_text(text),
                dict(ann_file='list.json', with_label=True),
                ValueError,
                'list.json is no JSON file of the form {"path": label}: ',
            )
            for text in ('["cat/000.jpg"]', '{"cat/000.jpg": ')
        ),
        (
            lambda root: [
                (root / 'tars').mkdir(),
                (root / 'tars' / 'a.tar').write_bytes(b'no tar file' * 100),
            ],
            dict(data_prefix='tars'),
            ValueError,
            'a.tar cannot be read as an uncompressed tar file',
        ),
    ],
)
def test_errors(tree, tmp_path, prepare, settings, kind, message):
    prepare(tree)
    with pytest.raises(kind, match=message):
        IndexedImages(str(tree), index_dir=str(tmp_path), **settings)


def test_no_folder_at_all():
    with pytest.raises(ValueError, match='data_root and data_prefix are empty'):
        IndexedImages()


def test_a_compressed_tar_file_is_refused(tree, tmp_path):
    with tarfile.open(tmp_path / 'a.tar', 'w:gz') as file:
        file.add(tree / 'cat', 'cat')
    with pytest.raises(
        ValueError, match=r'cannot be read as an uncompressed tar file .*; unpack or prepare it'
    ):
        IndexedImages(str(tmp_path), data_prefix='a.tar', index_dir=str(tmp_path))


def test_in_workers_and_pickled(tree, tmp_path):
    """Through the registry, in forked workers, and as a pickle, which spawned workers get."""
    path = pack(tree, tmp_path / 'a.tar')
    pipeline = [dict(type='LoadRandomCrop', scale=16), dict(type='PackInputs')]
    dataset = DATASETS.build(
        dict(
            type='mmpretrain.IndexedImages',
            data_root=str(path),
            index_dir=str(tmp_path),
            pipeline=pipeline,
        )
    )
    alone = [np.asarray(dataset[i]['data_samples'].ori_shape) for i in range(5)]
    loader = torch.utils.data.DataLoader(dataset, batch_size=None, num_workers=2)
    assert np.array_equal([sample['data_samples'].ori_shape for sample in loader], alone)
    again = pickle.loads(pickle.dumps(IndexedImages(str(path), index_dir=str(tmp_path))))
    assert again.get_data_info(3) == dataset.get_data_info(3)
