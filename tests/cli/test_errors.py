"""Errors are one sentence on standard error; during a run, the log file has the traceback."""

import logging
from types import SimpleNamespace

import pytest
import torch
from mae_plugin.cli.errors import SetupErrors, sentence_of
from torch.utils.data import DataLoader


class _Broken(torch.utils.data.Dataset):
    def __len__(self) -> int:
        return 4

    def __getitem__(self, index: int) -> int:
        raise ValueError(f'image {index} is broken')


def test_an_error_at_work_is_a_sentence_and_its_traceback_is_logged(monkeypatch, tmp_path):
    """The console showed some 30 lines of traceback."""
    monkeypatch.setattr('sys.argv', ['tools/train.py'])
    logger = logging.Logger('of a run')
    logger.addHandler(logging.FileHandler(tmp_path / 'run.log'))
    setup = SetupErrors()
    with pytest.raises(SystemExit) as ended, setup:
        setup._runner = SimpleNamespace(logger=logger)
        setup.before_train(None)
        raise RuntimeError('sizes of tensors must match')
    expected = f'train.py: error: sizes of tensors must match (traceback in {tmp_path / "run.log"})'
    assert ended.value.code == expected
    logged = (tmp_path / 'run.log').read_text()
    assert 'Traceback (most recent call last)' in logged
    assert "raise RuntimeError('sizes of tensors must match')" in logged


def test_sentences(tmp_path):
    """File names replace error numbers; the type is named if the text alone is unclear."""
    with pytest.raises(OSError, match='Errno 2') as missing:
        (tmp_path / 'none.txt').read_text()
    assert sentence_of(missing.value) == f'{tmp_path}/none.txt: no such file or directory'
    assert sentence_of(KeyError('X is not in the registry')) == 'X is not in the registry'
    assert sentence_of(AttributeError("'int' object has no attribute 'get'")).startswith(
        'AttributeError: '
    )
    assert sentence_of(ValueError('a\n  b')) == 'a b'
    assert sentence_of(AssertionError()) == 'AssertionError'
    built = ValueError(
        'class `MAE` in models/mae.py: class `MAEViT` in mae_vit.py: mask_ratio=2 is too large'
    )
    assert sentence_of(built) == 'mask_ratio=2 is too large'


def test_an_error_in_a_worker_is_its_own_sentence():
    """torch puts the worker's whole traceback into the text of the error."""
    with pytest.raises(ValueError, match='Caught ValueError') as raised:
        next(iter(DataLoader(_Broken(), num_workers=1)))
    assert sentence_of(raised.value) == 'image 0 is broken'


def test_weights_that_are_not_finite_are_refused():
    setup = SetupErrors()
    runner = SimpleNamespace(_load_from='epoch_3.pth')
    weights = dict(a=torch.zeros(2), b=torch.tensor([1.0, torch.nan]), c=torch.tensor(torch.inf))
    setup.after_load_checkpoint(runner, dict(state_dict=dict(a=torch.zeros(2), n=torch.tensor(3))))
    with pytest.raises(
        ValueError, match=r'epoch_3.pth holds weights that are NaN or infinite, in b and 1 more'
    ):
        setup.after_load_checkpoint(runner, dict(state_dict=weights))
