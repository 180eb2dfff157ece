"""Checkpoints through mmengine's and mmpretrain's loaders: unsafe ones are refused."""

import os
import uuid
from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from mmengine.logging import HistoryBuffer
from mmengine.runner import CheckpointLoader, Runner, load_checkpoint
from mmpretrain import get_model
from mmpretrain.registry import MODELS

from ..conftest import PRETRAIN, SMALL_PRETRAIN, run, tiny_config

NAME = 'mae_vit-base-p16_8xb512-amp-coslr-300e_in1k'
SMALL = dict(backbone=dict(arch='deit-tiny'), neck=dict(decoder_depth=1))


class Payload:
    """Writes a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return os.system, (f'touch {self.path}',)


@pytest.fixture
def doors(server, tmp_path):
    """Every way to load ``tmp_path/c.pth``, by name."""
    path, address = str(tmp_path / 'c.pth'), f'{server}/c.pth'

    def init(checkpoint: str) -> None:
        MODELS.build(
            dict(
                type='MAE',
                **{k: v for k, v in tiny_config().items() if k != 'type'},
                pretrained=checkpoint,
            )
        ).init_weights()

    def run_from(**settings) -> None:
        data = dict(
            dataset=dict(type='IndexedImages'), batch_size=1, sampler=dict(type='DefaultSampler')
        )
        cfg = dict(
            model=tiny_config(),
            train_dataloader=data,
            train_cfg=dict(max_epochs=1),
            optim_wrapper=dict(type='OptimWrapper', optimizer=dict(type='SGD', lr=1.0)),
            default_scope='mmpretrain',
            work_dir=str(tmp_path / 'run'),
            experiment_name=uuid.uuid4().hex,
            log_level='WARNING',
        )
        runner = Runner.from_cfg(Config(cfg | settings))
        # The first part of train(), without data.
        runner.load_or_resume()

    return {
        'load_from': lambda: run_from(load_from=path),
        'load_from an address': lambda: run_from(load_from=address),
        'resume': lambda: run_from(load_from=path, resume=True),
        'resume from an address': lambda: run_from(load_from=address, resume=True),
        'CheckpointLoader': lambda: CheckpointLoader.load_checkpoint(path),
        'load_checkpoint': lambda: load_checkpoint(torch.nn.Linear(1, 1), path),
        'init_cfg': lambda: init(path),
        'init_cfg by address': lambda: init(address),
        'get_model': lambda: get_model(NAME, pretrained=path, **SMALL),
        'get_model by address': lambda: get_model(NAME, pretrained=address, **SMALL),
    }


def test_malicious_checkpoint(doors, tmp_path):
    touched = tmp_path / 'touched'
    torch.save(dict(state_dict={}, extra=Payload(touched)), tmp_path / 'c.pth')
    for name, door in doors.items():
        with pytest.raises(
            ValueError, match=r'c\.pth holds \S+\.system, a type that no checkpoint needs'
        ):
            door()
        assert not touched.exists(), name


@pytest.mark.parametrize('content', ['half', b'', b'<!DOCTYPE html><html><body>404</body></html>'])
def test_damaged_checkpoint(doors, tmp_path, content):
    file = tmp_path / 'c.pth'
    torch.save(dict(state_dict=dict(w=torch.rand(1000))), file)
    file.write_bytes(file.read_bytes()[:2000] if content == 'half' else content)
    for door in doors.values():
        with pytest.raises(
            ValueError,
            match=r'c\.pth is not a readable checkpoint, or incomplete: \w',
        ):
            door()


def test_a_malicious_folder(tmp_path):
    """Hugging Face's older folders hold a pickle."""
    touched = tmp_path / 'touched'
    torch.save(dict(extra=Payload(touched)), tmp_path / 'pytorch_model.bin')
    with pytest.raises(
        ValueError, match=r'pytorch_model\.bin holds \S+\.system, a type that no checkpoint needs'
    ):
        CheckpointLoader.load_checkpoint(str(tmp_path))
    assert not touched.exists()


def test_another_architecture(doors, tmp_path):
    """Each way to load a whole model names groups of tensors, not a list of all."""
    wider = tiny_config(
        backbone=dict(arch=dict(embed_dims=64, num_layers=3, num_heads=2, feedforward_channels=64))
    )
    torch.save(
        dict(state_dict=MODELS.build(wider).state_dict(), meta=dict(epoch=0, iter=0)),
        tmp_path / 'c.pth',
    )
    for name, door in doors.items():
        if name not in ('CheckpointLoader', 'load_checkpoint'):
            with pytest.raises(
                ValueError,
                match=r'does not fit MAE: (it lacks|the model has no) backbone\.layers \(\d+\)',
            ) as error:
                door()
            assert len(str(error.value)) < 400, name


def test_runner_checkpoint_by_url(server, tmp_path):
    """A Runner's checkpoint, with its message hub, loads by a model's name and a URL."""
    source = get_model(NAME, **SMALL)
    for parameter in source.parameters():
        parameter.data += 0.1
    buffer = HistoryBuffer()
    buffer.update(1.0)
    meta = dict(epoch=300, iter=5, seed=0)
    saved = dict(
        meta=meta, state_dict=source.state_dict(), message_hub=dict(log_scalars=dict(loss=buffer))
    )
    torch.save(saved, tmp_path / 'c.pth')
    model = get_model(NAME, pretrained=f'{server}/c.pth', **SMALL)
    for key, tensor in source.state_dict().items():
        assert torch.equal(model.state_dict()[key], tensor), key


def test_tools_refuse_and_trust(tmp_path, imagenet):
    """The tools refuse it; --trust-checkpoint is the explicit exception, and runs the file."""
    touched, file = tmp_path / 'touched', tmp_path / 'c.pth'
    torch.save(dict(state_dict={}, meta={}, extra=Payload(touched)), file)
    common = ['--work-dir', tmp_path / 'run', '--data-root', imagenet, '--resume', file]
    for trust in ([], ['--trust-checkpoint']):
        options = ['--cfg-options', *SMALL_PRETRAIN, 'train_cfg.max_epochs=1']
        done = run('tools/train.py', PRETRAIN, *common, *trust, *options, fails=True)
        assert touched.exists() == bool(trust)
        assert ('a type that no checkpoint needs' in done.stderr.splitlines()[-1]) != bool(trust)
