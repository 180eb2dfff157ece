"""The notebook's cells in order, with a tiny model in place of a published one."""

import json

import numpy as np
import torch
from mmengine.config import Config
from mmpretrain import get_model
from PIL import Image

from .conftest import PRETRAIN, ROOT, tiny_config


def test_notebook(tmp_path, monkeypatch):
    """Jupyter is not installed: the source of each cell is executed in one namespace."""
    notebook = json.loads((ROOT / 'demo' / 'mae_visualize.ipynb').read_text())
    cells = [''.join(cell['source']) for cell in notebook['cells'] if cell['cell_type'] == 'code']
    assert not any(cell.get('outputs') for cell in notebook['cells'])
    config = Config.fromfile(ROOT / PRETRAIN)
    config.model = dict(tiny_config(), data_preprocessor=config.model.data_preprocessor)
    config.test_dataloader.dataset.pipeline[0].scale = 32
    config.dump(tmp_path / 'config.py')
    torch.save(get_model(config).state_dict(), tmp_path / 'weights.pth')
    (tmp_path / 'bird.JPEG').symlink_to(ROOT / 'demo' / 'bird.JPEG')
    monkeypatch.chdir(tmp_path)

    names = {}
    exec(cells[0], names)
    assert set(names) - {'__builtins__'} == {'IMAGE', 'MODEL', 'CHECKPOINT', 'DEVICE'}
    names.update(MODEL='config.py', CHECKPOINT='weights.pth')
    for cell in cells[1:]:
        exec(cell, names)
    written = {path.stem for path in tmp_path.glob('*.png')}
    assert written == {'reconstruction', 'ratios', 'own_mask', 'ground_truth_stats', 'tokens'}
    for name in written:
        with Image.open(tmp_path / f'{name}.png') as image:
            assert image.width > 600 and np.asarray(image).std() > 10
    assert names['result'].mask.view(4, 4).tolist() == [
        [0, 0, 0, 0],
        [0, 1, 1, 0],
        [0, 1, 1, 0],
        [0, 0, 0, 0],
    ]
