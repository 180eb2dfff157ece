"""Errors before a run are one sentence; errors during a run keep their traceback."""

import pytest
from mae_plugin.cli.errors import SetupErrors
from mae_plugin.cli.launch import check_checkpoint, check_data, pretrained_weights
from mmengine.config import Config, ConfigDict


def test_an_error_in_set_up_is_one_sentence(monkeypatch):
    monkeypatch.setattr('sys.argv', ['tools/train.py'])
    with pytest.raises(SystemExit) as ended, SetupErrors():
        raise ValueError('lr=-1\n  is negative')
    assert ended.value.code == 'train.py: error: lr=-1 is negative'
    with pytest.raises(SystemExit, match='Missing is not in the registry'), SetupErrors():
        raise KeyError('Missing is not in the registry')


def test_an_error_at_work_stays_as_it_is(monkeypatch):
    for begin in ('before_train', 'before_test'):
        with pytest.raises(ValueError, match='while training'), SetupErrors() as setup:
            getattr(setup, begin)(None)
            raise ValueError('while training')
    monkeypatch.setenv('MAE_TRACEBACK', '1')
    with pytest.raises(ValueError, match='asked for'), SetupErrors():
        raise ValueError('asked for')


def test_check_data(tmp_path):
    (tmp_path / 'train').mkdir()

    def config(**dataset) -> Config:
        return Config(dict(train_dataloader=dict(dataset=dataset), val_dataloader=None))

    for dataset in (
        dict(data_root=str(tmp_path), data_prefix='train'),
        dict(data_root=str(tmp_path), data_prefix=dict(img_path='elsewhere')),
        dict(data_root='s3://bucket', data_prefix='train'),
        dict(),
    ):
        check_data(config(**dataset), 'train_dataloader', 'val_dataloader', 'test_dataloader')
    with pytest.raises(FileNotFoundError, match=f'{tmp_path}/val of train_dataloader'):
        check_data(config(data_root=str(tmp_path), data_prefix='val'), 'train_dataloader')


def test_checkpoints(tmp_path):
    here = tmp_path / 'here.pth'
    here.touch()
    for path in (None, str(here), 'https://example.org/c.pth'):
        check_checkpoint(path, 'to load')
    with pytest.raises(FileNotFoundError, match=r"no checkpoint 'gone.pth' to load"):
        check_checkpoint('gone.pth', 'to load')
    model = ConfigDict(
        init_cfg=dict(type='Pretrained', checkpoint='a.pth'),
        backbone=dict(depth=2, init_cfg=dict(type='Pretrained', checkpoint='b.pth')),
        head=dict(init_cfg=[dict(type='TruncNormal'), dict(type='Pretrained', checkpoint='c.pth')]),
    )
    assert list(pretrained_weights(model)) == [
        ('model.init_cfg.checkpoint', 'a.pth'),
        ('model.backbone.init_cfg.checkpoint', 'b.pth'),
        ('model.head.init_cfg.1.checkpoint', 'c.pth'),
    ]
