"""The examples of unusual images: pre-training, reconstruction, resuming and fine-tuning."""

import runpy
import sys
import uuid

import pytest
import torch
from mmengine.config import Config
from mmpretrain import get_model
from mmpretrain.registry import DATASETS

from .conftest import ROOT, scalars, write_jpegs

EXAMPLES = {
    'mini-p8_gray-64px': ('gray', (1, 64, 64)),
    'mini-p12_bands-120px': ('bands', (13, 120, 120)),
    'mini-p16_sonograms-512x128': ('sonograms', (1, 512, 128)),
}


@pytest.fixture
def tool(monkeypatch):
    """Runs one of the tools in this process."""

    def run(name: str, *arguments: object) -> None:
        monkeypatch.setattr(sys, 'argv', [name, *map(str, arguments)])
        runpy.run_path(str(ROOT / 'tools' / name), run_name='__main__')

    return run


@pytest.mark.parametrize('name', EXAMPLES)
def test_example(tool, tmp_path, name):
    kind, shape = EXAMPLES[name]
    data = tmp_path / 'data'
    if kind == 'gray':
        for i, folder in enumerate(('train/a', 'train/b', 'val/a', 'val/b')):
            write_jpegs(data / folder, 8, seed=i)
    else:
        tool('make_examples.py', kind, data, '--number', 40)

    def train(config: str, work_dir: str, *options: object, more: list[str] = ()) -> None:
        settings = ['train_dataloader.batch_size=8', 'default_hooks.logger.interval=1', *more]
        settings += [
            f'{loader}.num_workers=0' for loader in ('train_dataloader', 'test_dataloader')
        ]
        settings += ['randomness.seed=1', f'experiment_name={uuid.uuid4().hex}']
        arguments = ['--data-root', data, '--work-dir', tmp_path / work_dir, *options]
        tool('train.py', ROOT / 'configs/mae' / config, *arguments, '--cfg-options', *settings)

    pretrain = f'mae_vit-{name}.py'
    train(pretrain, 'run', more=['train_cfg.max_epochs=1'])
    train(pretrain, 'run', '--resume', more=['train_cfg.max_epochs=2'])
    losses = [record['loss'] for record in scalars(tmp_path / 'run')]
    assert len(losses) in (4, 8) and all(0 < loss < 10 for loss in losses)
    assert torch.load(tmp_path / 'run/epoch_2.pth', weights_only=True)['meta']['iter'] == len(
        losses
    )

    config = Config.fromfile(ROOT / 'configs/mae' / pretrain)
    model = get_model(config, pretrained=str(tmp_path / 'run/epoch_2.pth'))
    images = DATASETS.build({**config.test_dataloader.dataset, 'data_root': str(data)})
    sample = images[0]['inputs']
    assert sample.shape == shape
    inputs = model.data_preprocessor(dict(inputs=torch.stack([sample, sample]), data_samples=None))[
        'inputs'
    ]
    assert -1.5 < inputs.mean() < 1.5 and 0.3 < inputs.std() < 3
    reconstruction, mask = model.reconstruct(inputs)
    assert reconstruction.shape == (2, *shape) and mask.mean() == 0.75

    classes = dict(more=['train_cfg.max_epochs=1', 'val_dataloader.num_workers=0'])
    train(
        f'benchmarks/vit-{name}.py',
        'tuned',
        '--pretrained',
        tmp_path / 'run/epoch_2.pth',
        **classes,
    )
    tuned = torch.load(tmp_path / 'tuned/epoch_1.pth', weights_only=True)['state_dict']
    start = torch.load(tmp_path / 'run/epoch_2.pth', weights_only=True)['state_dict']
    key = 'backbone.patch_embed.projection.weight'
    assert (
        tuned[key].shape[1] == shape[0]
        and torch.corrcoef(torch.stack([tuned[key], start[key]]).flatten(1))[0, 1] > 0.9
    )
