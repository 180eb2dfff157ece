"""Reading of regular files alone, with a bounded number of open descriptors."""

import errno
import os
import resource

import pytest
from mae_plugin.data import IndexedImages, LoadCenterCrop
from mae_plugin.data.sources import open_files as files_module
from mae_plugin.data.sources.open_files import OpenFiles, read_file

from ...conftest import write_jpegs
from ..test_indexed_images import pack

TRAIN = [dict(type='LoadRandomCrop', scale=16)]


def test_what_is_no_regular_file_is_not_read(tmp_path):
    """Opening a FIFO waited for a writer forever."""
    os.mkfifo(tmp_path / 'x.jpg')
    (tmp_path / 'terminal.jpg').symlink_to('/dev/tty')
    (tmp_path / 'zeros.jpg').symlink_to('/dev/zero')
    for name in ('x.jpg', 'zeros.jpg'):
        with pytest.raises(ValueError, match='not a regular file'):
            read_file(str(tmp_path / name))
        with pytest.raises(
            ValueError, match=f'{name} cannot be read as an image: it is not a regular file'
        ):
            LoadCenterCrop(16).transform(dict(img_path=str(tmp_path / name)))
    with pytest.raises((ValueError, OSError)):
        read_file(str(tmp_path / 'terminal.jpg'))
    with pytest.raises(IsADirectoryError):
        read_file(str(tmp_path))
    with pytest.raises(ValueError, match='neither a folder nor a regular file'):
        IndexedImages(str(tmp_path / 'x.jpg'), index_dir=str(tmp_path))


def test_more_tar_files_than_descriptors(tmp_path):
    """The last of 1,100 were skipped as damaged images."""
    write_jpegs(tmp_path / 'in', 1)
    shards = tmp_path / 'shards'
    shards.mkdir()
    content = pack(tmp_path / 'in', tmp_path / 'a.tar').read_bytes()
    for i in range(150):
        (shards / f'{i:03d}.tar').write_bytes(content)
    dataset = IndexedImages(str(shards), index_dir=str(tmp_path))
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    highest = max(map(int, os.listdir('/proc/self/fd')))
    resource.setrlimit(resource.RLIMIT_NOFILE, (highest + 100, hard))
    try:
        infos = [dataset.get_data_info(i) for i in range(150)]
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    image = (tmp_path / 'in' / '000.jpg').read_bytes()
    assert all(info.get('img_bytes') == image for info in infos)


def test_open_files_are_bounded(tmp_path):
    """The files used last stay open; a forked process has its own."""
    for i in range(5):
        (tmp_path / str(i)).write_bytes(f'file {i}'.encode())
    files = OpenFiles(limit=3)
    assert [files.read(str(tmp_path / str(i)), 5, 1) for i in range(5)] == [
        b'0',
        b'1',
        b'2',
        b'3',
        b'4',
    ]
    assert list(files._opened) == [str(tmp_path / str(i)) for i in (2, 3, 4)]
    files.read(str(tmp_path / '2'), 0, 1)
    child = os.fork()
    if child == 0:
        right = [files.read(str(tmp_path / str(i)), 5, 1) for i in range(5)] == [
            b'0',
            b'1',
            b'2',
            b'3',
            b'4',
        ]
        os._exit(0 if right else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert files.read(str(tmp_path / '0'), 5, 1) == b'0' and len(files) == 3
    assert list(files._opened) == [str(tmp_path / str(i)) for i in (4, 2, 0)]
    descriptors = list(files._opened.values())
    del files
    for descriptor in descriptors:
        with pytest.raises(OSError):
            os.fstat(descriptor)


@pytest.mark.parametrize('packed', [False, True])
def test_no_descriptor_is_no_broken_image(tmp_path, monkeypatch, packed):
    write_jpegs(tmp_path / 'in', 2)
    source = pack(tmp_path / 'in', tmp_path / 'a.tar') if packed else tmp_path / 'in'
    dataset = IndexedImages(str(source), index_dir=str(tmp_path), pipeline=TRAIN)

    def refuse(path, flags):
        raise OSError(errno.EMFILE, 'Too many open files', path)

    monkeypatch.setattr(files_module, '_open', refuse)
    with pytest.raises(
        RuntimeError, match=r'because too many files are open; raise the limit \(ulimit -n\)'
    ):
        dataset[0]
    assert dataset.pipeline.transforms[0].skipped.skipped == 0
