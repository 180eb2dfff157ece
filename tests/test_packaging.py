"""The wheel carries what the package looks for at run time."""

import subprocess
import sys
import zipfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def test_wheel_works_away_from_the_checkout(tmp_path):
    command = [sys.executable, '-m', 'pip', 'wheel', '--quiet', '--no-deps', '--wheel-dir', tmp_path, ROOT]
    subprocess.run(command, check=True, cwd=tmp_path)
    (wheel,) = tmp_path.glob('mae_plugin-*.whl')
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
        archive.extractall(tmp_path / 'installed')
    configs = {path.relative_to(ROOT).as_posix() for path in ROOT.glob('configs/**/*.py')}
    assert {f'mae_plugin/.mim/{name}' for name in (*configs, 'model-index.yml', 'configs/mae/metafile.yml')} <= set(
        names
    )
    assert not [name for name in names if name.startswith(('tests/', 'tools/'))]

    program = (
        'import mae_plugin, mmpretrain; from mmpretrain.apis.model import ModelHub;'
        "print(ModelHub.get('mae_vit-base-p16_8xb512-amp-coslr-300e_in1k').config.filename)"
    )
    environment = {'PYTHONPATH': str(tmp_path / 'installed'), 'PATH': ''}
    done = subprocess.run(
        [sys.executable, '-c', program], env=environment, cwd=tmp_path, capture_output=True, text=True, check=True
    )
    expected = tmp_path / 'installed/mae_plugin/.mim/configs/mae/mae_vit-base-p16_8xb512-amp-coslr-300e_in1k.py'
    assert done.stdout.splitlines()[-1] == str(expected)
