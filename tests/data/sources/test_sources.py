"""Unusual folders, tar and zip files: one rule for images, and nothing is lost silently."""

import io
import os
import stat
import tarfile
import zipfile
from pathlib import Path

import numpy as np
import pytest
from mae_plugin.apis import find_images
from mae_plugin.data import IndexedImages
from mae_plugin.data.prepare import Plan, jpeg_names, prepare
from mae_plugin.data.sources import folder as folder_module
from mae_plugin.data.sources.contents import open_source
from mae_plugin.data.sources.entries import (
    ARCHIVES,
    EARLY_END,
    OUTSIDE,
    REPLACED,
    SPECIAL,
    UNREADABLE,
)
from mae_plugin.data.sources.tars import scan_tar
from PIL import Image

from ...conftest import write_jpegs
from ..test_indexed_images import labels, names
from ..test_prepare import contents

ENDINGS = ('.jpg', '.png')
# Paths and their content, a link's target, None for a folder, or a FIFO.
FIFO = object()
ENTRIES = {
    'a/1.jpg': b'one',
    'a/notes.txt': b'no image',
    'a/.hidden.jpg': b'hidden',
    '.cache/2.jpg': b'hidden',
    '__MACOSX/a/3.jpg': b'of the system',
    '__MACOSX/a/._1.jpg': b'of the system',
    'a/@eaDir/4.jpg': b'of the system',
    'lost+found/5.jpg': b'of the system',
    'a/inner.zip': b'an archive',
    'a/INNER.TAR': b'an archive',
    'a/inner.tar.gz': b'an archive',
    'a/link.jpg': Path('1.jpg'),
    'a/up.jpg': Path('../a/link.jpg'),
    'a/dangling.jpg': Path('gone.jpg'),
    'a/itself.jpg': Path('itself.jpg'),
    'a/fifo.jpg': FIFO,
    'empty': None,
    'z/ü.PNG': b'another',
}


def make_folder(path: Path, entries: dict) -> Path:
    for name, content in entries.items():
        place = path / name
        place.parent.mkdir(parents=True, exist_ok=True)
        if content is None:
            place.mkdir()
        elif content is FIFO:
            os.mkfifo(place)
        elif isinstance(content, Path):
            place.symlink_to(content)
        else:
            place.write_bytes(content)
    return path


def make_tar(path: Path, entries: dict) -> Path:
    with tarfile.open(path, 'w') as file:
        for name, content in entries.items():
            info = tarfile.TarInfo(name)
            if content is None or content is FIFO:
                info.type = tarfile.FIFOTYPE if content is FIFO else tarfile.DIRTYPE
            elif isinstance(content, Path):
                info.type, info.linkname = tarfile.SYMTYPE, str(content)
            else:
                info.size = len(content)
            file.addfile(info, io.BytesIO(content) if isinstance(content, bytes) else None)
    return path


def make_zip(path: Path, entries: dict) -> Path:
    with zipfile.ZipFile(path, 'w') as file:
        for name, content in entries.items():
            info = zipfile.ZipInfo(f'{name}/' if content is None else name)
            kind = (
                stat.S_IFIFO
                if content is FIFO
                else stat.S_IFLNK
                if isinstance(content, Path)
                else stat.S_IFREG
            )
            info.external_attr = 0o755 << 16 if content is None else (kind | 0o644) << 16
            file.writestr(
                info,
                b''
                if content in (None, FIFO)
                else str(content)
                if isinstance(content, Path)
                else content,
            )
    return path


MAKERS = dict(folder=make_folder, tar=make_tar, zip=make_zip)


@pytest.fixture(params=MAKERS)
def kind(request):
    return request.param


def test_one_rule_for_all(kind, tmp_path):
    """Folders followed links, tar files lost them, zip files had macOS's files, a FIFO hung."""
    source = open_source(str(MAKERS[kind](tmp_path / 'source', ENTRIES)), '', ENDINGS, tmp_path)
    assert sorted(name for name, *_ in source.images) == [
        'a/1.jpg',
        'a/link.jpg',
        'a/up.jpg',
        'z/ü.PNG',
    ]
    assert [source.read(place) for _, place, _ in source.images] == [
        b'one',
        b'one',
        b'one',
        b'another',
    ]
    assert list(source.folders) == (['a', 'empty', 'z'] if kind == 'folder' else ['empty'])
    assert source.left_out.notes() == [[ARCHIVES, 3, 'a/INNER.TAR'], [SPECIAL, 3, 'a/dangling.jpg']]


def test_hard_links_and_names_of_archives(tmp_path):
    """Both were lost silently, or led out of the archive."""
    path = make_tar(
        tmp_path / 'a.tar',
        {'./a/1.jpg': b'one', '../../x.jpg': b'x', '/abs.jpg': b'x', 'a//2.jpg': b'two'},
    )
    with tarfile.open(path, 'a') as file:
        info = tarfile.TarInfo('b/3.jpg')
        info.type, info.linkname = tarfile.LNKTYPE, 'a/1.jpg'
        file.addfile(info)
        info = tarfile.TarInfo('a/1.jpg')
        info.size = 3
        file.addfile(info, io.BytesIO(b'new'))
    source = open_source(str(path), '', ENDINGS, tmp_path)
    found = {name: source.read(place) for name, place, _ in source.images}
    assert found == {'a/1.jpg': b'new', 'a/2.jpg': b'two', 'b/3.jpg': b'new'}
    assert source.left_out.notes() == [[REPLACED, 1, 'a/1.jpg'], [OUTSIDE, 2, '../../x.jpg']]
    source = open_source(
        str(make_zip(tmp_path / 'a.zip', {'../../x.jpg': b'x', './1.jpg': b'1'})),
        '',
        ENDINGS,
        tmp_path,
    )
    assert [name for name, *_ in source.images] == ['1.jpg'] and source.left_out.notes() == [
        [OUTSIDE, 1, '../../x.jpg']
    ]


def big_tar(path: Path) -> int:
    """Packs six images and returns the byte at which the fourth one begins."""
    root = path.parent / 'images'
    write_jpegs(root, 6, size=(300, 300))
    make_tar(path, {f'a/{i}.jpg': (root / f'{i:03d}.jpg').read_bytes() for i in range(6)})
    with tarfile.open(path) as file:
        return file.getmembers()[3].offset


@pytest.mark.parametrize(
    ('damage', 'found', 'end'),
    [
        (lambda data, at: data[:at] + b'?' + data[at + 1 :], 3, 'a damaged header'),
        (lambda data, at: data[:at], 3, 'cut off at byte'),
        (lambda data, at: data[: at + 100], 3, 'cut off at byte'),
        (lambda data, at: data[: at - 600], 2, 'cut off within a member'),
        (lambda data, at: data[:at] + bytes(len(data) - at), 3, 'nothing but zeros'),
        (lambda data, at: data[:at] + bytes(1024) + data[at:], 3, 'more data after an end mark'),
        (lambda data, at: data + data, 6, 'more data after an end mark'),
    ],
    ids=[
        'checksum',
        'before a header',
        'in a header',
        'in an image',
        'zeros',
        'end mark',
        'two in one',
    ],
)
def test_a_tar_file_that_ends_early(tmp_path, log, damage, found, end):
    """All these silently gave the images up to the damage, here and in prepare."""
    path = tmp_path / 'a.tar'
    at = big_tar(path)
    path.write_bytes(damage(path.read_bytes(), at))
    assert len(IndexedImages(str(path), index_dir=str(tmp_path))) == found
    warnings = [line for line in log if line.startswith('Left out of')]
    assert len(warnings) == 1 and EARLY_END in warnings[0] and f'a.tar: {end}' in warnings[0]
    assert f'after {found} files' in warnings[0]
    # The stored index repeats the warning.
    IndexedImages(str(path), index_dir=str(tmp_path))
    assert [line for line in log if line.startswith('Left out of')] == 2 * warnings


@pytest.mark.parametrize('format', [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_every_damage_of_a_tar_file_is_reported(tmp_path, format):
    """Flipped bits in headers, and files cut at many lengths: all images, a warning, or an error.

    Long names lie outside the headers and have no checksum, so their damage cannot be detected.
    """
    path, name = (
        tmp_path / 'a.tar',
        'a/' + ('n' * 90 if format == tarfile.USTAR_FORMAT else 'n' * 120),
    )
    with tarfile.open(path, 'w', format=format) as file:
        for i in range(3):
            info = tarfile.TarInfo(f'{name}{i}.jpg')
            info.size = 700
            file.addfile(info, io.BytesIO(bytes([i + 1]) * 700))
    whole = path.read_bytes()
    expected = scan_tar(str(path), ENDINGS)
    assert len(expected.images) == 3 and not expected.left_out.notes()
    end = expected.images[-1][1][0] + 700
    random = np.random.default_rng(0)
    damaged = [whole[:length] for length in range(0, end + 1000, 97)]
    headers = [
        place for place in range(0, end, 512) if whole[place + 257 : place + 262] == b'ustar'
    ]
    places = np.add.outer([*headers, end - end % 512 + 512], np.arange(512)).ravel()
    for place in random.choice(places, 400, replace=False).tolist():
        damaged.append(
            whole[:place]
            + bytes([whole[place] ^ 1 << int(random.integers(8))])
            + whole[place + 1 :]
        )
    for content in damaged:
        path.write_bytes(content)
        try:
            scan = scan_tar(str(path), ENDINGS)
        except ValueError:
            continue
        assert scan.images == expected.images or scan.left_out.notes()
        # The end mark may be cut too.
        assert len(content) >= end + 512 or scan.left_out.notes()


def test_prepare_lists_what_is_left_out(tmp_path, log):
    path = tmp_path / 'a.tar'
    at = big_tar(path)
    whole = path.read_bytes()
    assert open_source(str(path), '', ENDINGS, tmp_path).left_out.notes() == []
    path.write_bytes(whole[: at + 100])
    manifest = prepare(Plan(str(path)), tmp_path / 'out', workers=1)
    example = f'a.tar: cut off at byte {at} of {at + 100}, after 3 files'
    assert manifest['images'] == 3 and manifest['left_out'] == [[EARLY_END, 1, example]]
    assert any(line == f'Left out of {path}: {EARLY_END} (1, such as {example})' for line in log)


def test_a_compressed_tar_file_that_ends_early(tmp_path):
    with tarfile.open(tmp_path / 'a.tgz', 'w:gz') as file:
        info = tarfile.TarInfo('1.jpg')
        info.size = 10**5
        file.addfile(info, io.BytesIO(os.urandom(10**5)))
    os.truncate(tmp_path / 'a.tgz', 50_000)
    with pytest.raises(ValueError, match=r'a\.tgz is cut off or damaged'):
        prepare(Plan(str(tmp_path / 'a.tgz')), tmp_path / 'out', workers=1)


def test_images_beside_tar_files_are_refused(tmp_path):
    """They were lost silently, the tar files in prepare."""
    write_jpegs(tmp_path / 'in' / 'deep', 1)
    make_tar(tmp_path / 'in' / 'b.TAR', {'1.jpg': b'one'})
    for read in (
        lambda source: IndexedImages(source),
        lambda source: prepare(Plan(source), tmp_path / 'out'),
    ):
        with pytest.raises(
            ValueError,
            match=r'in holds both tar files, such as b\.TAR, and images, such as deep/000\.jpg',
        ):
            read(str(tmp_path / 'in'))
    assert find_images(tmp_path / 'in') == [tmp_path / 'in/deep/000.jpg']


def test_tar_files_of_other_names(tmp_path, log):
    """A.TAR is read, compressed files are reported, a pipe of such a name does not hang."""
    make_tar(tmp_path / 'in.TAR', {'1.jpg': b'one'})
    shards = tmp_path / 'shards'
    shards.mkdir()
    (tmp_path / 'in.TAR').rename(shards / 'A.TAR')
    (shards / 'b.tar.gz').write_bytes(b'compressed')
    os.mkfifo(shards / 'c.tar')
    dataset = IndexedImages(str(shards), index_dir=str(tmp_path))
    assert names(dataset) == [str(shards / 'A.TAR/1.jpg')]
    assert f'Left out of {shards}: {ARCHIVES} (2, such as b.tar.gz)' in log
    (shards / 'A.TAR').unlink()
    with pytest.raises(
        FileNotFoundError,
        match=r'no image in .*left out: archives within.*\(2, such as b\.tar\.gz\)',
    ):
        IndexedImages(str(shards), index_dir=str(tmp_path))


def test_a_folder_without_images_keeps_its_number(tmp_path, kind, log):
    """An empty b changed c from 2 to 1; prepared tar files keep it too."""
    write_jpegs(tmp_path / 'jpeg', 1)
    image = (tmp_path / 'jpeg' / '000.jpg').read_bytes()
    entries = {
        'a': None,
        'a/1.jpg': image,
        'b': None,
        'c': None,
        'c/1.jpg': image,
        'd': None,
        'd/1.jpg': b'broken',
    }
    source = MAKERS[kind](tmp_path / 'source', entries)
    prepare(Plan(str(source), per_shard=2), tmp_path / 'out', workers=1)
    prepared = IndexedImages(str(tmp_path / 'out'), with_label=True, index_dir=str(tmp_path))
    assert labels(prepared) == [0, 2] and prepared.CLASSES == ('a', 'b', 'c', 'd')
    if kind != 'zip':
        dataset = IndexedImages(str(source), with_label=True, index_dir=str(tmp_path))
        assert labels(dataset) == [0, 2, 3] and dataset.CLASSES == ('a', 'b', 'c', 'd')
        assert any(
            'has 1 class folders without images, such as b; they count as classes' in line
            for line in log
        )
        given = IndexedImages(
            str(source), with_label=True, classes=['d', 'c', 'a'], index_dir=str(tmp_path)
        )
        assert labels(given) == [2, 1, 0]


def test_folders_that_cannot_be_read(tmp_path, monkeypatch, log):
    """One of them ended the whole scan; an unreadable root still does."""
    root = make_folder(
        tmp_path / 'in', {'a/1.jpg': b'one', 'locked/2.jpg': b'two', 'z/3.jpg': b'three'}
    )
    (root / 'itself').symlink_to('itself')
    (root / 'circle').symlink_to('.')
    long = root / 'z'
    descriptor = os.open(long, os.O_RDONLY)
    for _ in range(20):
        os.mkdir('n' * 250, dir_fd=descriptor)
        below = os.open('n' * 250, os.O_RDONLY, dir_fd=descriptor)
        os.close(descriptor)
        descriptor = below
    os.close(descriptor)

    def refuse(path, _scan=os.scandir):
        if str(path).endswith('locked'):
            raise PermissionError(13, 'Permission denied', path)
        return _scan(path)

    monkeypatch.setattr(folder_module.os, 'scandir', refuse)
    dataset = IndexedImages(str(root), with_label=True, index_dir=str(tmp_path))
    assert names(dataset) == [str(root / 'a/1.jpg'), str(root / 'z/3.jpg')]
    assert labels(dataset) == [0, 2] and dataset.CLASSES == ('a', 'locked', 'z')
    (warning,) = [line for line in log if line.startswith('Left out of')]
    assert f'{UNREADABLE} (Permission denied) (1, such as locked)' in warning
    assert f'{UNREADABLE} (File name too long) (1, such as z/nnn' in warning
    monkeypatch.setattr(folder_module.os, 'scandir', lambda path: refuse('locked'))
    with pytest.raises(PermissionError):
        IndexedImages(str(root / 'a'), index_dir=str(tmp_path))


def test_find_images_takes_what_the_dataset_takes(tmp_path):
    root = make_folder(tmp_path / 'in', ENTRIES)
    assert find_images(root) == [
        root / name for name in ('a/1.jpg', 'a/link.jpg', 'a/up.jpg', 'z/ü.PNG')
    ]
    assert find_images(str(root / 'a/*.jpg')) == [
        root / name for name in ('a/1.jpg', 'a/link.jpg', 'a/up.jpg')
    ]


def test_reduced_images_keep_names_apart(tmp_path):
    """a.png became a.jpg beside the a.jpg that was there."""
    for i, name in enumerate(('a.jpg', 'a.png', 'b.png', 'b.bmp', 'c.png', 'a.png.jpg')):
        Image.new('RGB', (40, 40), (40 * i, 0, 0)).save(tmp_path / 'source.png')
        (tmp_path / 'in').mkdir(exist_ok=True)
        Image.open(tmp_path / 'source.png').save(tmp_path / 'in' / name)
    prepare(Plan(str(tmp_path / 'in'), size=20), tmp_path / 'out', workers=1)
    expected = ['a.jpg', 'a.png.jpg.jpg', 'a.png.jpg', 'b.bmp.jpg', 'b.png.jpg', 'c.jpg']
    assert list(contents(tmp_path / 'out')) == expected
    reds = {
        name: Image.open(io.BytesIO(data)).getpixel((9, 9))[0]
        for name, data in contents(tmp_path / 'out').items()
    }
    for i, name in enumerate(
        ('a.jpg', 'a.png.jpg.jpg', 'b.png.jpg', 'b.bmp.jpg', 'c.jpg', 'a.png.jpg')
    ):
        assert abs(reds[name] - 40 * i) < 4
    assert jpeg_names(['x.JPEG', 'y.tif']) == ['x.JPEG', 'y.jpg']
