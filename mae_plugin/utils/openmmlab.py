"""Imports mmengine and mmpretrain, on which the rest of the package builds."""

from __future__ import annotations

import importlib
import warnings

_PACKAGES = ('mmengine', 'mmcv', 'mmpretrain')


def import_openmmlab() -> None:
    """Imports mmpretrain and its models.

    Switches off mmpretrain's multimodal models where they cannot be imported.

    Raises:
        ImportError: if mmengine, mmcv or mmpretrain is not installed.
    """
    with warnings.catch_warnings():
        # mmcv-lite lacks an operator of object detectors, which mmpretrain does not use.
        message = 'Fail to import ``MultiScaleDeformableAttention``'
        warnings.filterwarnings('ignore', message=message)
        try:
            for package in _PACKAGES:
                importlib.import_module(package)
        except ModuleNotFoundError as error:
            if error.name not in _PACKAGES:
                raise
            raise ImportError(
                f'mae_plugin needs {error.name}, which is not installed; install the packages of '
                'OpenMMLab with pip install "mae_plugin[openmmlab]", or their maintained forks '
                'with pip install "mae_plugin[onedl]"',
                name=error.name,
            ) from None
        from ._compat.mmpretrain import switch_off_broken_multimodal

        switch_off_broken_multimodal()
        importlib.import_module('mmpretrain.models')
