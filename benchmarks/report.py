"""Helpers of all benchmarks: the description of the machine, results as JSON, synchronization."""

from __future__ import annotations

import datetime
import json
import os
import platform
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import torch

PACKAGES = (
    'torch',
    'mmengine',
    'onedl-mmengine',
    'mmpretrain',
    'onedl-mmpretrain',
    'transformers',
    'lightly',
    'timm',
)


def circumstances(device: torch.device) -> dict[str, str]:
    """Returns the device, the versions of the compared packages, and the date."""
    name = f'{os.cpu_count()} CPU cores ({platform.machine()})'
    if device.type == 'cuda':
        name = torch.cuda.get_device_name(device)
    found = {
        'device': name,
        'date': datetime.date.today().isoformat(),
        'python': platform.python_version(),
    }
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def write_json(path: Path | None, **figures: object) -> None:
    """Writes figures to a JSON file, unless ``path`` is None."""
    if path is not None:
        path.write_text(json.dumps(figures, indent=2) + '\n')


def synchronize(device: torch.device) -> None:
    """Waits until all work queued on the device is complete."""
    if device.type == 'cuda':
        torch.cuda.synchronize(device)
