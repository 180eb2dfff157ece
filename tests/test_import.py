"""What `import mae_plugin` needs, and what it changes in the process; in fresh processes."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from .conftest import ROOT

# Prints what the import changes as a JSON list of names.
CHANGES = """
import json, logging, os, random, signal, sys, threading, warnings
import numpy, torch
with warnings.catch_warnings():
    warnings.simplefilter('ignore')
    import mmpretrain.datasets, mmpretrain.engine, mmpretrain.evaluation, mmpretrain.models
from mmengine.fileio.backends import registry_utils
from mmengine.registry import Registry
from mmengine.runner import CheckpointLoader
from mmpretrain import registry
from mmpretrain.apis.model import ModelHub
from PIL import Image, ImageFile

ModelHub._register_mmpretrain_models()
FOREIGN = ('mmengine', 'mmcv', 'mmpretrain', 'torch', 'torchvision', 'PIL', 'numpy', 'modelindex')


def identify(value):
    return f'{value.__module__}.{getattr(value, "__qualname__", "")}'


def attributes():
    found = {}
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')
        for module_name, module in list(sys.modules.items()):
            if module_name.split('.')[0] not in FOREIGN or 'torch._' in module_name:
                continue
            for name, value in list(vars(module).items()):
                if name.startswith('__') or not callable(value):
                    continue
                found[f'{module_name}.{name}'] = value
                if isinstance(value, type):
                    for method, function in list(vars(value).items()):
                        if callable(function) or isinstance(function, classmethod | staticmethod):
                            found[f'{identify(value)}.{method}'] = function
    return found


def state():
    generators = random.getstate(), numpy.random.get_state()[1].tolist()
    found = {
        'warnings.filters': list(map(str, warnings.filters)),
        'os.environ': dict(os.environ),
        'random generators': [str(generators), torch.get_rng_state().tolist()],
        'signal handlers': [str(signal.getsignal(number)) for number in signal.Signals],
        'sys.excepthook': str(sys.excepthook),
        'threads': threading.active_count(),
        'working directory': os.getcwd(),
        'torch.get_default_dtype()': str(torch.get_default_dtype()),
        'torch.serialization.get_safe_globals()': list(map(str, torch.serialization.get_safe_globals())),
        'torch.backends': [torch.backends.cudnn.benchmark, torch.backends.cuda.matmul.allow_tf32],
        'root logger': [logging.root.level, list(map(str, logging.root.handlers))],
        'PIL limits': [Image.MAX_IMAGE_PIXELS, ImageFile.LOAD_TRUNCATED_IMAGES],
    }
    for scheme, loader in CheckpointLoader._schemes.items():
        found[f'CheckpointLoader {scheme or "local files"}'] = identify(loader)
    for name, backend in registry_utils.backends.items():
        found[f'file backend {name}'] = identify(backend)
    for name, model in ModelHub._models_dict.items():
        found[f'hub {name}'] = str(model.config)
    for name, value in vars(registry).items():
        if isinstance(value, Registry):
            for key, module in value.module_dict.items():
                found[f'{name} {key}'] = identify(module)
    return found


before, attributes_before = state(), attributes()
with warnings.catch_warnings(record=True) as caught:
    import mae_plugin
after, attributes_after = state(), attributes()
changed = {key for key in {*before, *after} if before.get(key) != after.get(key)}
changed |= {f'warning: {warning.message}' for warning in caught}
for name, value in attributes_before.items():
    if attributes_after[name] is not value:
        # Packages that export a function again have one entry, under the name of its own module.
        own = getattr(value, '__module__', None)
        changed.add(identify(value) if own and not isinstance(value, classmethod) else name)
print(json.dumps(sorted(changed)))
"""


def run_python(program: str, *arguments: str, path: Path = ROOT, **environment: str):
    """Runs a program in a fresh process that finds the package, and the packages in ``path``."""
    folders = os.pathsep.join([str(ROOT), str(path)])
    return subprocess.run(
        [sys.executable, '-c', program, *arguments],
        capture_output=True,
        text=True,
        env={**os.environ, 'PYTHONPATH': folders, **environment},
    )


def test_all_changes_are_in_the_docs():
    """The first columns of the tables in docs/import.md are exactly what changes."""
    done = run_python(CHANGES)
    assert done.returncode == 0, done.stderr
    changed = set(json.loads(done.stdout.splitlines()[-1]))
    page = (ROOT / 'docs' / 'import.md').read_text()
    listed = set(re.findall(r'^\| `([^`]+)` \|', page, re.MULTILINE))
    hub = {name for name in changed if name.startswith('hub ')}
    assert changed - hub == listed
    assert len(hub) == 25 and '24 models' in page


def test_import_is_silent():
    """mmcv-lite warned of a missing operator at every start."""
    done = run_python('import warnings; warnings.simplefilter("always"); import mae_plugin')
    assert done.returncode == 0 and 'MultiScaleDeformableAttention' not in done.stderr


@pytest.mark.parametrize('package', ['mmengine', 'mmcv', 'mmpretrain'])
def test_without_openmmlab(package):
    """One sentence names both extras."""
    done = run_python(f'import sys; sys.modules["{package}"] = None; import mae_plugin')
    assert done.returncode == 1
    sentence = done.stderr.splitlines()[-1]
    assert sentence.startswith(f'ImportError: mae_plugin needs {package}, which is not installed')
    assert '"mae_plugin[openmmlab]"' in sentence and '"mae_plugin[onedl]"' in sentence
    assert 'During handling' not in done.stderr


@pytest.mark.openmmlab_only
def test_with_transformers_5_and_pycocotools(tmp_path):
    """mmpretrain imported its multimodal models: TypeError: NoneType takes no arguments."""
    (tmp_path / 'pycocotools').mkdir()
    (tmp_path / 'pycocotools' / '__init__.py').touch()
    (tmp_path / 'pycocotools-2.0.8.dist-info').mkdir()
    (tmp_path / 'pycocotools-2.0.8.dist-info' / 'METADATA').write_text(
        'Metadata-Version: 2.1\nName: pycocotools\nVersion: 2.0.8\n'
    )
    alone = run_python('import mmpretrain.models', path=tmp_path)
    assert 'NoneType takes no arguments' in alone.stderr
    done = run_python('import mae_plugin, mmpretrain.datasets', path=tmp_path)
    assert done.returncode == 0, done.stderr


def test_without_what_windows_lacks():
    """Windows has none of these modules, signals and functions of the system."""
    program = """
import os, signal, sys
import torch, torchvision, multiprocessing.synchronize, matplotlib.pyplot
import subprocess, asyncio, concurrent.futures, multiprocessing.popen_fork
for name in ('mmpretrain', 'mmpretrain.models'):
    __import__(name)
sys.modules['fcntl'] = None
for name in ('SIGUSR1', 'SIGKILL', 'SIGBUS', 'pthread_sigmask', 'sigtimedwait'):
    delattr(signal, name)
for name in ('EX_TEMPFAIL', 'register_at_fork', 'fork', 'O_NONBLOCK', 'O_NOCTTY', 'O_CLOEXEC', 'getuid'):
    delattr(os, name)
import mae_plugin, mae_plugin.analysis, mae_plugin.cli.launch, mae_plugin.cli.arguments
import importlib, pkgutil
for module in pkgutil.walk_packages(mae_plugin.__path__, 'mae_plugin.'):
    importlib.import_module(module.name)
hook = mae_plugin.engine.PreemptionHook()
print(hook.exit_code)
"""
    # Windows sets USERNAME.
    done = run_python(program, USER='', LOGNAME='', LNAME='', USERNAME='someone')
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == '75'
