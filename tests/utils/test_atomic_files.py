"""Files that several processes write and read at once, and remains of killed processes."""

import fcntl
import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from mae_plugin.utils import atomic_files
from mae_plugin.utils.atomic_files import staged, staged_file, write_atomically

from ..processes import FORK, holding


def run_all(*functions) -> list[int]:
    """Runs functions in processes of their own; returns their exit codes."""
    processes = [FORK.Process(target=function) for function in functions]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    return [process.exitcode for process in processes]


def test_readers_never_see_a_torn_file(tmp_path):
    """Formerly writers shared one temporary name, and half of their writes failed."""
    path = tmp_path / 'epoch_1.pth'
    # Long enough that a write takes several system calls.
    versions = [bytes([number]) * (3_000_000 + 100_000 * number) for number in range(3)]
    write_atomically(path, versions[0])

    def write(number: int) -> None:
        for _ in range(15):
            write_atomically(path, versions[number])

    def read() -> None:
        for _ in range(60):
            assert path.read_bytes() in versions

    assert run_all(*(lambda n=n: write(n) for n in range(3)), read, read) == [0] * 5
    assert path.read_bytes() in versions and os.listdir(tmp_path) == [path.name]


@pytest.fixture
def writer(tmp_path):
    """A process that is writing ``epoch_1.pth``, and its temporary file."""

    @contextmanager
    def write() -> Iterator[None]:
        with staged_file(tmp_path / 'epoch_1.pth') as part:
            part.write_bytes(b'half')
            yield

    with holding(write) as process:
        (part,) = tmp_path.glob('*.part')
        yield process, part


def test_what_a_killed_process_left_is_removed(writer, tmp_path):
    """The next write removes it; the temporary file of a live process stays."""
    process, part = writer
    write_atomically(tmp_path / 'epoch_2.pth', b'whole')
    assert part.read_bytes() == b'half'
    os.kill(process.pid, signal.SIGKILL)
    process.join()
    assert part.exists()
    write_atomically(tmp_path / 'epoch_3.pth', b'whole')
    assert sorted(os.listdir(tmp_path)) == ['epoch_2.pth', 'epoch_3.pth']


def test_files_that_look_alike_stay(tmp_path):
    for name in ('a.part', 'a.0123abc.part', 'part', 'a.0123abcd.part.pth'):
        (tmp_path / name).write_bytes(b'mine')
    write_atomically(tmp_path / 'a', b'whole')
    assert len(os.listdir(tmp_path)) == 5


def test_without_locks(writer, tmp_path, monkeypatch):
    """Without locks a file is still written, and no temporary file of others is removed."""

    def without_locks(*_) -> None:
        raise OSError(38, 'Function not implemented')

    monkeypatch.setattr(fcntl, 'flock', without_locks)
    write_atomically(tmp_path / 'epoch_2.pth', b'whole')
    assert (tmp_path / 'epoch_2.pth').read_bytes() == b'whole' and writer[1].exists()


def test_a_long_name(tmp_path):
    """The temporary name is no longer than file systems allow."""
    path = tmp_path / ('é' * 120 + '.pth')
    write_atomically(path, b'whole')
    assert path.read_bytes() == b'whole'
    umask = os.umask(0)
    os.umask(umask)
    assert path.stat().st_mode & 0o777 == 0o666 & ~umask


def test_a_folder_appears_with_its_first_opened_file_last(tmp_path, monkeypatch):
    """Loaders find config.json first, so the weights that it describes are in place before it."""
    renamed = []
    replace = os.replace
    monkeypatch.setattr(
        os, 'replace', lambda file, place: renamed.append(place.name) or replace(file, place)
    )
    with staged(tmp_path / 'model') as folder:
        folder.mkdir()
        for name in ('config.json', 'model.safetensors', 'a.txt'):
            (folder / name).write_text(name)
        assert not (tmp_path / 'model').exists()
    assert renamed[-1] == 'config.json' and sorted(renamed[:2]) == ['a.txt', 'model.safetensors']
    assert sorted(os.listdir(tmp_path / 'model')) == ['a.txt', 'config.json', 'model.safetensors']
    assert os.listdir(tmp_path) == ['model']


def test_nothing_is_overwritten_without_force(tmp_path):
    """The target is checked first, and files written beside it before they are moved."""
    (tmp_path / 'a').write_text('old')
    (tmp_path / 'b.data').write_text('old')
    with pytest.raises(ValueError, match='a exists already; .* force=True'), staged(tmp_path / 'a'):
        pass
    with (
        pytest.raises(ValueError, match=r'b\.data exists already'),
        staged(tmp_path / 'b') as part,
    ):
        part.write_text('new')
        part.with_name('b.data').write_text('new')
    assert sorted(os.listdir(tmp_path)) == ['a', 'b.data']
    with staged(tmp_path / 'a', force=True) as part:
        part.write_text('new')
    assert (tmp_path / 'a').read_text() == 'new'


def test_a_folder_that_a_killed_process_left_is_removed(tmp_path):
    @contextmanager
    def write() -> Iterator[None]:
        with staged(tmp_path / 'model') as folder:
            folder.mkdir()
            (folder / 'config.json').write_text('half')
            yield

    with holding(write) as process:
        write_atomically(tmp_path / 'a', b'whole')
        assert len(os.listdir(tmp_path)) == 2
        os.kill(process.pid, signal.SIGKILL)
        process.join()
        write_atomically(tmp_path / 'b', b'whole')
        assert sorted(os.listdir(tmp_path)) == ['a', 'b']


def test_names_are_on_disk_too(tmp_path, monkeypatch):
    """Every way to write synchronizes the folder after the rename."""
    synced = []
    fsync = os.fsync

    def record(descriptor: int) -> None:
        synced.append(os.readlink(f'/proc/self/fd/{descriptor}'))
        fsync(descriptor)

    monkeypatch.setattr(os, 'fsync', record)
    write_atomically(tmp_path / 'a', b'whole')
    assert synced[-1] == str(tmp_path) and len(synced) == 2
    with staged(tmp_path / 'b') as part:
        part.write_text('whole')
    assert synced[-1] == str(tmp_path) and len(synced) == 4


def test_on_windows(tmp_path, monkeypatch):
    """On Windows, where temporary files are not locked, files and folders are still written."""
    monkeypatch.setattr(atomic_files, '_CAN_LOCK', False)
    write_atomically(tmp_path / 'a', b'whole')
    with staged(tmp_path / 'b') as part:
        part.write_text('whole')
    assert sorted(os.listdir(tmp_path)) == ['a', 'b']
