"""The wheel carries what the package looks for at run time."""

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import mmpretrain

from .conftest import ROOT, SMALL_PRETRAIN, scalars, write_jpegs


def test_wheel_works_away_from_the_checkout(tmp_path):
    command = [
        sys.executable,
        '-m',
        'pip',
        'wheel',
        '--quiet',
        '--no-deps',
        '--wheel-dir',
        tmp_path,
        ROOT,
    ]
    subprocess.run(command, check=True, cwd=tmp_path)
    (wheel,) = tmp_path.glob('mae_plugin-*.whl')
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
        archive.extractall(tmp_path / 'installed')
    configs = {path.relative_to(ROOT).as_posix() for path in ROOT.glob('configs/**/*.py')}
    assert {
        f'mae_plugin/.mim/{name}'
        for name in (*configs, 'model-index.yml', 'configs/mae/metafile.yml')
    } <= set(names)
    assert 'mae_plugin/py.typed' in names
    assert not [name for name in names if name.startswith(('tests/', 'tools/', 'benchmarks/'))]

    program = """
import mae_plugin, torch
from mmpretrain import FeatureExtractor, get_model, inference_model, list_models
name = 'vit-base-p16_mae-300e-pre_8xb128-coslr-100e_in1k'
assert name in list_models('vit-base*')
assert len(inference_model(name, 'BIRD')['pred_scores']) == 1000
model = get_model('mae_vit-base-p16_8xb512-amp-coslr-300e_in1k')
assert model.extract_feat(torch.rand(1, 3, 224, 224))[0].shape == (1, 197, 768)
assert FeatureExtractor(model)('BIRD')[0][0].shape == (197, 768)
print(model._config.filename)
""".replace('BIRD', str(ROOT / 'demo' / 'bird.JPEG'))
    environment = {**os.environ, 'PYTHONPATH': str(tmp_path / 'installed')}
    done = subprocess.run(
        [sys.executable, '-c', program],
        env=environment,
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
    )
    expected = (
        tmp_path
        / 'installed/mae_plugin/.mim/configs/mae/mae_vit-base-p16_8xb512-amp-coslr-300e_in1k.py'
    )
    assert done.stdout.splitlines()[-1] == str(expected)

    # mmpretrain's own tool on our config, which brings the plugin by its custom_imports.
    write_jpegs(tmp_path / 'images' / 'train', 4)
    tool = Path(mmpretrain.__file__).parent / '.mim' / 'tools' / 'train.py'
    options = [option for option in SMALL_PRETRAIN if 'num_workers' not in option]
    options += ['train_dataloader.num_workers=1', 'train_cfg.max_epochs=1']
    options += [f'train_dataloader.dataset.data_root={tmp_path}/images']
    command = [
        sys.executable,
        tool,
        expected,
        '--work-dir',
        tmp_path / 'run',
        '--cfg-options',
        *options,
    ]
    subprocess.run(command, env=environment, cwd=tmp_path, check=True, capture_output=True)
    assert len(scalars(tmp_path / 'run')) == 1
