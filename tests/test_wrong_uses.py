"""Wrong uses of the tools: every error is one sentence with the cause, without a traceback."""

import ctypes
from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from mmpretrain import get_model

from .conftest import ROOT, write_jpegs
from .processes import FORK
from .test_tools import error_of

NAME = 'mae_vit-mini-p8_1xb128-coslr-20e_64px'


@pytest.fixture(scope='module')
def place(tmp_path_factory) -> Path:
    """Images in data/, a checkpoint of NAME in run/, NaN in nan.pth, and damaged files."""
    root = tmp_path_factory.mktemp('wrong')
    write_jpegs(root / 'data' / 'train' / 'a', 8)
    write_jpegs(root / 'data' / 'val' / 'a', 2)
    (config,) = (ROOT / 'configs').rglob(f'{NAME}.py')
    cfg = Config.fromfile(config)
    (root / 'run').mkdir()
    torch.manual_seed(0)
    state_dict = get_model(cfg).state_dict()
    checkpoint = dict(
        meta=dict(cfg=cfg.pretty_text, epoch=1, iter=2), state_dict=state_dict, message_hub={}
    )
    torch.save(checkpoint, root / 'run' / 'epoch_1.pth')
    state_dict['backbone.cls_token'].fill_(torch.nan)
    torch.save(checkpoint, root / 'nan.pth')
    (root / 'broken.py').write_text('model = (\n')
    (root / 'other.py').write_text('x = 1\n')
    (root / 'text.pth').write_text('not a checkpoint')
    (root / 'file').touch()
    return root


TRAIN = ['train', NAME, '--data-root', '{data}', '--work-dir', '{new}']
TEST = ['test', 'vit-mini-p8_gray-64px', 'None', '--data-root', '{data}', '--work-dir', '{new}']
LOOK = [NAME, '{run}/epoch_1.pth', '{data}/train', '--out']


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        (
            ['train', '{root}/broken.py'],
            "broken.py has a syntax error in line 1: '(' was never closed",
        ),
        (['train', '{root}/other.py'], '{root}/other.py configures no model'),
        (['train', '{run}/epoch_1.pth'], '{run}/epoch_1.pth holds weights and is not a config'),
        (['train', NAME[:-1]], f'did you mean {NAME}?'),
        (
            [*TRAIN, '--epochs', '5'],
            'instead of --epochs give --cfg-options train_cfg.max_epochs=N',
        ),
        ([*TRAIN, '--data_root', 'x'], 'did you mean --data-root?'),
        ([*TRAIN, '--batch-size', '0'], '0 is no whole number of at least 1'),
        (
            ['train', NAME, '--data-root', '{data}', '--work-dir', '{root}/file'],
            '{root}/file cannot be used',
        ),
        (
            ['train', NAME, '--data-root', '{data}', '--work-dir', '/proc/x'],
            'cannot be used (No such file',
        ),
        ([*TRAIN, '--cfg-options', 'train_dataloader.batchsize=2'], 'did you mean batch_size?'),
        (
            [*TRAIN, '--cfg-options', 'train_dataloader.batch_size=0'],
            'batch_size=0 must be at least 1',
        ),
        (
            [*TRAIN, '--cfg-options', 'model.backbone=5'],
            'model.backbone=5 must be a dict of settings with a type',
        ),
        ([*TRAIN, '--cfg-options', 'custom_hooks.3.minutes=5'], 'must be a list of hooks'),
        ([*TRAIN, '--cfg-options', 'custom_imports.imports=[no_such_module]'], 'no_such_module'),
        (
            [*TEST, '--out', '{root}/file/p.pkl'],
            '{root}/file/p.pkl cannot be written (it is a file); name another',
        ),
        (
            [*TEST, '--out', '{root}', '--out-item', 'metrics'],
            '{root} cannot be written (it is a folder)',
        ),
        (
            [*TEST, '--out', '/proc/x/m.json', '--out-item', 'metrics'],
            '/proc/x/m.json cannot be written (No such',
        ),
        (
            [*TEST, '--show-dir', '{root}/file'],
            'the folder {root}/file cannot be used (it is a file); name another',
        ),
        (
            ['reconstruct', *LOOK, '{root}/file'],
            'the folder {root}/file cannot be used (it is a file); name another',
        ),
        (['extract_features', *LOOK, '{root}/file/f.npz'], 'the folder {root}/file cannot be used'),
        (['prepare_dataset', '{data}', '{root}/file'], 'the folder {root}/file cannot be used'),
        (['test', NAME, '{run}/epoch_1.pth'], 'has no test_dataloader and test_evaluator'),
        (['reconstruct', *LOOK, '{new}', '--device', 'tpu9'], 'device tpu9 is unknown'),
        (
            ['reconstruct', *LOOK, '{new}', '--device', 'cuda:99'],
            'device cuda:99 is a GPU, but this machine has',
        ),
        (
            ['reconstruct', *LOOK, '{new}', '--batch-size', '-1'],
            '-1 is no whole number of at least 1',
        ),
        (
            ['reconstruct', NAME, '{root}/nan.pth', '{data}/train', '--out', '{new}'],
            'NaN or infinite, in backbone.',
        ),
        (
            ['reconstruct', '{root}/nan.pth', '{data}/train', '--out', '{new}'],
            'NaN or infinite, in backbone.',
        ),
        (
            ['extract_features', NAME, '{root}/nan.pth', '{data}/train', '--out', '{new}.npz'],
            'weights that are NaN',
        ),
        (
            ['export_encoder', '{root}/nan.pth', '{new}.pth', '--to', 'timm'],
            'nan.pth holds weights that are NaN',
        ),
        (
            ['convert_checkpoint', '{root}/nan.pth', '{new}.pth', '--to', 'mae'],
            'nan.pth holds weights that are NaN',
        ),
        (
            ['reconstruct', NAME[:-1], 'None', '{data}/train', '--out', '{new}'],
            f'did you mean {NAME}?',
        ),
        (
            ['reconstruct', '{data}', '{data}/train', '--out', '{new}'],
            '{data} holds no checkpoint of a run',
        ),
        (
            [
                'export_encoder',
                '{run}/epoch_1.pth',
                '{new}.pth',
                '--to',
                'timm',
                '--num-heads',
                '0',
            ],
            'at least 1',
        ),
        (
            ['channel_stats', NAME, '--data-root', '{data}', '--num-workers', '-1'],
            '-1 is no whole number',
        ),
        (
            ['prepare_dataset', '{data}', '{new}', '--workers', '0'],
            '0 is no whole number of at least 1',
        ),
        (['make_examples', 'bands', '{new}', '--seed', '-1'], '-1 is no whole number'),
        (['demo', '--data', '{data}', '--device', 'tpu9'], 'device tpu9 is unknown'),
    ],
)
def test_every_end_is_a_sentence(capfd, place, tmp_path, arguments, message):
    names = dict(root=place, data=place / 'data', run=place / 'run', new=tmp_path / 'new')
    tool, *arguments = [argument.format(**names) for argument in arguments]
    error = error_of(capfd, f'tools/{tool}.py', *arguments)
    assert error.startswith(f'{tool}.py: error: ')
    assert message.format(**names) in error
    assert not any(word in error for word in ('Traceback', 'TypeError', 'AttributeError', 'Errno'))


def drop_capabilities() -> None:
    """Drops root's permission to write where file modes forbid it."""
    header, none = (ctypes.c_uint32 * 2)(0x20080522, 0), (ctypes.c_uint32 * 6)()
    assert ctypes.CDLL(None).capset(header, none) == 0


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        (
            [*TRAIN[:-1], '{locked}'],
            'the work dir {locked} cannot be used (it may not be written); name another',
        ),
        (
            [*TRAIN[:-1], '{locked}/run'],
            'the work dir {locked}/run cannot be used (Permission denied); name another',
        ),
        (
            [*TEST, '--out', '{locked}/p.pkl'],
            '{locked}/p.pkl cannot be written (it may not be written); name another',
        ),
        (
            ['prepare_dataset', '{data}', '{locked}'],
            'the folder {locked} cannot be used (it may not be written)',
        ),
        (
            ['prepare_dataset', '{data}', '{locked}/x'],
            'the folder {locked}/x cannot be used (Permission denied)',
        ),
        (
            ['reconstruct', *LOOK, '{locked}'],
            'the folder {locked} cannot be used (it may not be written)',
        ),
        (
            ['extract_features', *LOOK, '{locked}/f.npz'],
            'the folder {locked} cannot be used (it may not be written)',
        ),
        (
            ['convert_checkpoint', '{run}/epoch_1.pth', '{locked}/c.pth', '--to', 'mae'],
            'the folder {locked} cannot be',
        ),
    ],
)
def test_a_place_that_may_not_be_written(capfd, place, tmp_path, arguments, message):
    """Some tools failed only at the end of their work."""
    locked = tmp_path / 'locked'
    locked.mkdir(mode=0o555)
    names = dict(data=place / 'data', run=place / 'run', new=tmp_path / 'new', locked=locked)
    tool, *arguments = [argument.format(**names) for argument in arguments]
    results = FORK.SimpleQueue()

    def use() -> None:
        drop_capabilities()
        results.put(error_of(capfd, f'tools/{tool}.py', *arguments))

    process = FORK.Process(target=use)
    process.start()
    process.join(100)
    assert process.exitcode == 0
    error = results.get()
    assert error.startswith(f'{tool}.py: error: ') and message.format(**names) in error
    assert 'traceback' not in error and not any(locked.iterdir())
