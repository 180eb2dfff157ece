"""mmpretrain's own tools, as its wheel carries them, on the shipped configs and the checkpoints of
their runs.
"""

import json
import os
import re
import subprocess
import sys

import mmengine
import numpy as np
import pytest
import torch
from mae_plugin import MAE, MAEPretrainDecoder, MAEPretrainHead, MAEViT
from mmengine.config import Config
from mmengine.registry import init_default_scope
from mmpretrain.registry import MODELS

from .conftest import FINETUNE, LINEAR, PRETRAIN, ROOT
from .mmpretrain_tools import COMMANDS, TOOLS

PAGE = ROOT / 'docs/with-mmpretrain-tools.md'
NEW_STYLE = """
from mmpretrain.models import MAE, MAEPretrainDecoder, MAEPretrainHead, MAEViT, PixelReconstructionLoss

model = dict(
    type=MAE,
    backbone=dict(type=MAEViT, arch='b', patch_size=16),
    neck=dict(type=MAEPretrainDecoder),
    head=dict(type=MAEPretrainHead, norm_pix=True, loss=dict(type=PixelReconstructionLoss, criterion='L2')),
)
"""


@pytest.mark.parametrize('config', [PRETRAIN, FINETUNE, LINEAR])
def test_what_the_tools_look_up(config):
    """``vis_tsne.py``, ``vis_scheduler.py`` and ``test.py --show`` ended for want of these."""
    cfg = Config.fromfile(ROOT / config)
    assert cfg.log_level == 'INFO'
    assert cfg.default_hooks.param_scheduler == dict(type='ParamSchedulerHook')
    assert cfg.default_hooks.visualization == dict(type='VisualizationHook', enable=False)


def test_the_page_names_tools_that_exist():
    rows = re.findall(r'^\| `(\S+\.py)` \| (?:`(\w+)`)? *\|', PAGE.read_text(), re.MULTILINE)
    tools = [f'{folder}/{tool}' if folder else tool for tool, folder in rows]
    assert len(tools) == 14 and [tool for tool in tools if not (TOOLS / tool).is_file()] == []
    assert {command[0] for command in COMMANDS.values()} <= set(tools)


def test_new_style_configs(tmp_path):
    """Such configs import the classes, so the plugin's come in by the lines that the page gives."""
    (tmp_path / 'mae_vit_base_p16_8xb512_amp_coslr_300e_in1k.py').write_text(NEW_STYLE)
    (snippet,) = re.findall(
        r'```python\n(from mmengine.config import read_base.*?)```', PAGE.read_text(), re.DOTALL
    )
    (tmp_path / 'ours.py').write_text(snippet)
    init_default_scope('mmpretrain')
    theirs = MODELS.build(
        Config.fromfile(tmp_path / 'mae_vit_base_p16_8xb512_amp_coslr_300e_in1k.py').model
    )
    assert not isinstance(theirs, MAE)
    model = MODELS.build(Config.fromfile(tmp_path / 'ours.py').model)
    parts = [type(part) for part in (model, model.backbone, model.neck, model.head)]
    assert parts == [MAE, MAEViT, MAEPretrainDecoder, MAEPretrainHead]


@pytest.fixture(scope='module')
def done(tmp_path_factory):
    """The folder in which all tools have run, and what became of each."""
    folder = tmp_path_factory.mktemp('tools')
    environment = {**os.environ, 'PYTHONPATH': str(ROOT), 'PYTHONWARNINGS': 'ignore'}
    command = [sys.executable, '-m', 'tests.mmpretrain_tools', str(folder)]
    subprocess.run(command, cwd=ROOT, env=environment, check=True, capture_output=True)
    return folder, json.loads((folder / 'results.json').read_text())


@pytest.mark.slow
@pytest.mark.parametrize('name', [name for name in COMMANDS if name != 't-SNE'])
def test_a_tool_ends_well(done, name):
    _, results = done
    assert results[name]['error'] == ''


@pytest.mark.slow
def test_what_the_tools_give(done):
    folder, results = done
    predictions = mmengine.load(folder / 'work/predictions.pkl')
    assert len(predictions) == 12 and len(list((folder / 'shown').iterdir())) == 12
    labels = [sample['gt_label'].item() for sample in predictions]
    assert labels == [0] * 4 + [1] * 4 + [2] * 4
    matrix = mmengine.load(folder / 'work/matrix.pkl')
    assert np.array(matrix).sum(axis=1).tolist() == [4, 4, 4]
    (published,) = (folder / 'work').glob('published_*.pth')
    published = torch.load(published, weights_only=True)
    assert set(published) == {'meta', 'state_dict'}
    assert tuple(published['meta']['dataset_meta']['classes']) == ('a', 'b', 'c')
    for fold in range(2):
        assert (folder / f'work/kfold/fold{fold}/epoch_2.pth').is_file()
    assert results['kfold']['output'].count('Number of samples: \t12\n') == 2
    assert (folder / 'work/pretrain.png').is_file() and (folder / 'work/finetune.png').is_file()
    assert (folder / 'work/broken.log').read_text().split() == ['data/train/a/broken.jpg']
    assert len(list((folder / 'browsed').iterdir())) == 24
    assert '64, 64' in results['flops']['output']


@pytest.mark.slow
def test_the_features_of_t_sne(done):
    """The tool ends afterwards where scikit-learn no longer has ``n_iter``, as the page says."""
    folder, results = done
    (features,) = folder.glob('work_dirs/*/*/tsne_*/feat_3.npy')
    assert np.load(features).shape == (12, 128)
    assert (
        results['t-SNE']['error'] == ''
        or "unexpected keyword argument 'n_iter'" in results['t-SNE']['error']
    )
