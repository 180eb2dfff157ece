"""Tests the reported causes of errors in data-loader workers."""

import multiprocessing
import os
import signal
import time

import pytest
from mae_plugin.data import LoadRandomCrop
from mae_plugin.engine.loops.worker_errors import find_cause
from torch.utils.data import DataLoader, Dataset

from .test_train import train


class OwnError(ValueError):
    """An error whose type is not builtin."""


class TwoArguments(Exception):
    def __init__(self, name, value):
        super().__init__(f'{name} is {value}')


class Failing(Dataset):
    def __init__(self, error) -> None:
        self.error = error

    def __len__(self) -> int:
        return 4

    def __getitem__(self, index):
        if isinstance(self.error, int):
            os.kill(os.getpid(), self.error)
            time.sleep(60)
        raise self.error


@pytest.mark.parametrize(
    ('error', 'kind', 'message'),
    [
        (ValueError('51 of 100 images are broken'), ValueError, '51 of 100 images are broken'),
        (
            OwnError('of\ntwo lines, one of them\nValueError: quoted'),
            OwnError,
            'of\ntwo lines, one of them',
        ),
        (MemoryError(), MemoryError, 'MemoryError'),
        (KeyError('img_label'), KeyError, 'img_label'),
        (TwoArguments('size', 3), RuntimeError, 'TwoArguments: size is 3'),
    ],
)
def test_an_error_in_a_worker(error, kind, message):
    """Every error was reported as lack of memory, as torch's messages contain such words."""
    loader = DataLoader(Failing(error), num_workers=1)
    with pytest.raises(Exception) as caught:
        next(iter(loader))
    cause = find_cause(caught.value, ())
    assert type(cause) is kind and message in str(cause)
    assert 'Traceback' not in str(cause) and 'DataLoader' not in str(cause)


@pytest.mark.parametrize(
    ('number', 'expected_text'),
    [
        (signal.SIGKILL, 'was killed by SIGKILL, by the system perhaps, for lack of memory'),
        (signal.SIGSEGV, 'was killed by SIGSEGV, by a decoder perhaps'),
        (signal.SIGBUS, r'was killed by SIGBUS, perhaps for lack of shared memory \(/dev/shm\)'),
    ],
)
def test_a_worker_that_a_signal_killed(number, expected_text):
    batches = iter(DataLoader(Failing(int(number)), num_workers=1))
    with pytest.raises(Exception) as caught:
        next(batches)
    for workers in (batches._workers, ()):
        cause = find_cause(caught.value, workers)
        if workers or 'is killed by signal' in str(caught.value):
            assert isinstance(cause, RuntimeError)
            with pytest.raises(RuntimeError, match=f'a worker of the data loader {expected_text}'):
                raise cause


def test_errors_that_no_worker_caused():
    assert find_cause(ValueError('DataLoader worker'), ()) is None
    assert (
        find_cause(
            RuntimeError('DataLoader worker (pid 7) exited unexpectedly with exit code 1.'), ()
        )
        is None
    )
    assert find_cause(KeyboardInterrupt(), ()) is None


@pytest.mark.parametrize('by_epoch', [True, False])
def test_half_of_the_images_broken(images, tmp_path, monkeypatch, by_epoch):
    """Ends the run with the error about the images."""

    def refuse(*_) -> None:
        raise RuntimeError('51 of 100 images could not be read')

    monkeypatch.setattr(LoadRandomCrop, 'transform', refuse)
    with pytest.raises(RuntimeError) as error:
        train(images, tmp_path, workers=1, by_epoch=by_epoch)
    assert str(error.value) == '51 of 100 images could not be read'
    for worker in multiprocessing.active_children():
        worker.join(20)
        assert not worker.is_alive()
