"""Build step of the wheel; pyproject.toml holds the metadata."""

import shutil
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py

ROOT = Path(__file__).resolve().parent


class BuildWithConfigs(build_py):
    """Copies the configs and the model index into the wheel, where mmpretrain's tools find them."""

    def run(self) -> None:
        """Builds the package, then copies its assets unless the installation is editable."""
        super().run()
        if not self.editable_mode:
            assets = Path(self.build_lib) / 'mae_plugin' / '.mim'
            shutil.copytree(ROOT / 'configs', assets / 'configs', dirs_exist_ok=True)
            shutil.copy(ROOT / 'model-index.yml', assets)


setup(cmdclass={'build_py': BuildWithConfigs})
