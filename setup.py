"""Installation; ``pip install -e .`` for a checkout, a wheel carries configs and model index inside the package."""

import re
import shutil
from pathlib import Path

from setuptools import find_packages, setup
from setuptools.command.build_py import build_py

ROOT = Path(__file__).resolve().parent


class BuildWithConfigs(build_py):
    """Puts configs and model index into the wheel, where ``mim`` and :mod:`mae_plugin.registry` look for them."""

    def run(self) -> None:
        super().run()
        if not self.editable_mode:
            assets = Path(self.build_lib) / 'mae_plugin' / '.mim'
            shutil.copytree(ROOT / 'configs', assets / 'configs', dirs_exist_ok=True)
            shutil.copy(ROOT / 'model-index.yml', assets)


setup(
    name='mae_plugin',
    version=re.search(r"__version__ = '(.+)'", (ROOT / 'mae_plugin' / '__init__.py').read_text()).group(1),
    description='Masked Autoencoders for mmpretrain: exact, fast, at home on current torch',
    long_description=(ROOT / 'README.md').read_text(),
    long_description_content_type='text/markdown',
    license='Apache-2.0',
    packages=find_packages(include=['mae_plugin', 'mae_plugin.*']),
    python_requires='>=3.10',
    install_requires=[
        'torch>=2.6',
        'torchvision',
        'imagecodecs',
        'numpy',
        'matplotlib',
        'pillow',
        'rich',
        'safetensors',
        'simplejpeg',
        'tifffile',
    ],
    extras_require={
        'openmmlab': ['mmengine>=0.10.7', 'mmcv-lite>=2.2.0', 'mmpretrain>=1.2.0'],
        # mmcv-lite is left out: its metadata asks for upstream mmengine, which would overwrite the fork's files.
        'onedl': ['onedl-mmengine>=0.10.12', 'onedl-mmpretrain>=1.3.6', 'opencv-python-headless'],
        'demo': ['elpv-dataset>=1.0.0'],
        'onnx': ['onnx', 'onnxruntime', 'onnxscript'],
        'heif': ['pillow-heif'],
        'parquet': ['pyarrow'],
        'test': [
            'pillow-heif',
            'pytest',
            'pytest-timeout',
            'pytest-xdist',
            'ruff',
            'scikit-learn',
            'timm>=1',
            'transformers>=5',
        ],
    },
    cmdclass={'build_py': BuildWithConfigs},
)
