"""Labels: names or whole numbers in their order; all others are rejected by name."""

import json
import os

import pytest
from mae_plugin.data import IndexedImages
from mae_plugin.data.prepare import Plan, prepare
from mae_plugin.data.sources.labels import checked_label

from ...conftest import write_jpegs
from ..test_indexed_images import labels, names, pack
from ..test_prepare import contents


@pytest.fixture
def root(tmp_path):
    write_jpegs(tmp_path / 'in' / 'cat', 3)
    return tmp_path / 'in'


FIRST, SECOND, THIRD = (f'cat/00{i}.jpg' for i in range(3))


def annotated(
    root, content: str | bytes | dict, name: str = 'list.json', **settings
) -> IndexedImages:
    path = root.parent / name
    if isinstance(content, dict):
        content = json.dumps(content)
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    settings = dict(with_label=True, ann_file=str(path), index_dir=str(root.parent)) | settings
    return IndexedImages(str(root), **settings)


@pytest.mark.parametrize(
    ('value', 'label'),
    [
        ('cat', 'cat'),
        (' cat ', 'cat'),
        (7, '7'),
        ('7', '7'),
        ('007', '7'),
        (10.0, '10'),
        ('10.0', '10'),
        ('日本', '日本'),
    ],
)
def test_labels(value, label):
    assert checked_label(value, 'x.jpg') == label


@pytest.mark.parametrize(
    'value',
    [
        None,
        True,
        False,
        [],
        [1],
        {},
        '',
        '  ',
        -1,
        '-1',
        1.5,
        '1.5',
        'nan',
        float('inf'),
        '1e400',
        10**12,
        '\udce9',
    ],
)
def test_no_labels(value):
    with pytest.raises(
        ValueError,
        match=r'x\.jpg has the label .*; a label is a class name or a whole number from 0',
    ):
        checked_label(value, 'x.jpg')


def test_numbers_are_numbers(root):
    """As text, 10.0 was sorted before 2.0, and -1 shifted all other labels."""
    assert labels(annotated(root, {FIRST: 10.0, SECOND: '2.0', THIRD: 3})) == [10, 2, 3]
    assert labels(annotated(root, f'{FIRST} 10\n{SECOND} 2\n', 'list.txt')) == [10, 2]
    with pytest.raises(
        ValueError, match=r"the image 'cat/001\.jpg' in .*list\.json has the label -1; a label is"
    ):
        annotated(root, {FIRST: 0, SECOND: -1})
    with pytest.raises(ValueError, match=r'the label null; a label is'):
        annotated(root, {FIRST: 'cat', SECOND: None})
    with pytest.raises(
        ValueError,
        match='labels that are numbers, such as 10, and labels that are names, such as cat',
    ):
        annotated(root, {FIRST: 10, SECOND: 'cat', THIRD: 2})
    assert labels(annotated(root, {FIRST: 1, SECOND: 'cat'}, classes=['cat', 'dog'])) == [1, 0]


@pytest.mark.parametrize('name', ['list.txt', 'list.json'])
def test_ways_to_write_a_list(root, monkeypatch, name):
    """./x, absolute paths, a BOM, CRLF and tabs: none of them was read correctly."""
    paths = [f'./{FIRST}', str(root / SECOND), 'cat/../cat//002.jpg']
    if name == 'list.txt':
        content = '\ufeff' + ''.join(f'{path}\t{i}\r\n' for i, path in enumerate(paths))
    else:
        content = '\ufeff' + json.dumps({path: i for i, path in enumerate(paths)})
    dataset = annotated(root, content, name)
    assert names(dataset) == [str(root / path) for path in (FIRST, SECOND, THIRD)] and labels(
        dataset
    ) == [0, 1, 2]
    monkeypatch.chdir(root)
    relative = IndexedImages(
        '.', ann_file=str(root.parent / name), with_label=True, index_dir=str(root.parent)
    )
    assert names(relative) == [f'./{path}' for path in (FIRST, SECOND, THIRD)]


def test_an_image_listed_twice_is_used_twice(root):
    """Oversampling was lost; an image with two labels is an error."""
    assert labels(annotated(root, f'{FIRST} 0\n{SECOND} 1\n./{FIRST} 0\n', 'list.txt')) == [0, 1, 0]
    assert labels(annotated(root, f'{{"{FIRST}": "b", "{SECOND}": "a", "{FIRST}": "b"}}')) == [
        1,
        0,
        1,
    ]
    twice = annotated(root, f'{FIRST}\n{FIRST}\n', 'list.txt', with_label=False)
    assert names(twice) == [str(root / FIRST)] * 2
    with pytest.raises(
        ValueError, match=r'gives cat/000\.jpg two labels, 0 and 1; remove one line'
    ):
        annotated(root, f'{FIRST} 0\n{FIRST} 1\n', 'list.txt')


@pytest.mark.parametrize(
    ('name', 'content'), [('list.txt', ''), ('list.txt', '\ufeff\r\n\n'), ('list.json', '{}')]
)
def test_an_empty_list_is_refused(root, name, content):
    with pytest.raises(ValueError, match=f'the ann_file .*{name} lists no image'):
        annotated(root, content, name)
    with pytest.raises(FileNotFoundError, match='the ann_file .*absent does not exist'):
        IndexedImages(str(root), ann_file='absent', index_dir=str(root.parent))


def test_names_that_are_not_utf8_in_a_list(root):
    os.rename(root / FIRST, os.fsencode(root / 'cat') + b'/caf\xe9.jpg')
    dataset = annotated(root, b'cat/caf\xe9.jpg 4\n', 'list.txt')
    assert labels(dataset) == [4] and os.path.exists(names(dataset)[0])


def test_a_list_for_several_tar_files(root, tmp_path):
    """The last of several images of one name was taken for all of them."""
    shards = tmp_path / 'shards'
    shards.mkdir()
    for i in range(2):
        pack(root, shards / f'{i}.tar')
    dataset = annotated(
        shards, f'1.tar/{FIRST} 5\n0.tar/{FIRST} 6\n{shards}/0.tar/{SECOND} 7\n', 'list.txt'
    )
    assert labels(dataset) == [5, 6, 7]
    assert names(dataset) == [
        str(shards / name) for name in (f'1.tar/{FIRST}', f'0.tar/{FIRST}', f'0.tar/{SECOND}')
    ]
    with pytest.raises(
        ValueError,
        match=r'cat/000\.jpg in .* is in several tar files of .*; write TAR_FILE/cat/000\.jpg',
    ):
        annotated(shards, f'{FIRST} 5\n', 'list.txt')


def test_json_without_a_label_beside_one(root, tmp_path):
    """It removed the label: images got the class of their folder, and prepare lost the labels."""
    members = {
        f'cat/00{i}.cls': word for i, word in enumerate((b'lion', b'\xef\xbb\xbftiger', b'lion'))
    }
    members |= {f'cat/00{i}.json': b'{"caption": "an animal"}' for i in range(3)}
    for order in (members, dict(reversed(members.items()))):
        path = pack(root, tmp_path / 'a.tar', order)
        dataset = IndexedImages(str(path), with_label=True, index_dir=str(tmp_path))
        assert labels(dataset) == [0, 1, 0] and dataset.CLASSES == ('lion', 'tiger')
    prepare(Plan(str(path)), tmp_path / 'out', workers=1)
    kept = {
        name: data for name, data in contents(tmp_path / 'out').items() if name.endswith('.cls')
    }
    assert kept == {'cat/000.cls': b'lion', 'cat/001.cls': b'tiger', 'cat/002.cls': b'lion'}


@pytest.mark.parametrize(
    ('member', 'content', 'shown'),
    [
        ('000.cls', b'', '""'),
        ('000.cls', b'-1', '"-1"'),
        ('000.json', b'{"label": null}', 'null'),
        ('000.json', b'{"label": true}', 'true'),
        ('000.json', b'{"cls": [1]}', r'\[1\]'),
        ('000.json', b'{"label": 1.5}', '1.5'),
    ],
)
def test_labels_in_tar_files_that_are_none(root, tmp_path, member, content, shown):
    """They became class names, or the folder became the class; prepare reports them."""
    path = pack(root, tmp_path / 'a.tar', {f'cat/{member}': content})
    assert len(IndexedImages(str(path), index_dir=str(tmp_path))) == 3
    with pytest.raises(
        ValueError, match=rf'cat/{member} has the label {shown}; a label is a class name'
    ):
        IndexedImages(str(path), with_label=True, index_dir=str(tmp_path))
    manifest = prepare(Plan(str(path)), tmp_path / 'out', workers=1)
    assert [note[0] for note in manifest['left_out']] == ['labels that are not valid'] and manifest[
        'images'
    ] == 3
