"""Counts the FLOPs of a training step, forward and backward, exactly and without a GPU.

python -m benchmarks.flops --arch b
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import torch
from rich.console import Console
from rich.table import Table
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from .baselines import ARCHS, GRAPHS, IMPLEMENTATIONS, Arch, build


def count(name: str, arch: Arch) -> int:
    """Counts the FLOPs of one image, forward and backward, two per multiply-add."""
    implementation = build(name, arch, torch.device('cpu'), compile_tuned=False)
    images = torch.zeros(1, 3, 224, 224, dtype=torch.uint8)
    # The counter covers matrix products, and the plain form of attention consists of them.
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        implementation.forward(images).backward()
    return counter.get_total_flops()


def main() -> None:
    parser = argparse.ArgumentParser(
        description='Count the FLOPs of a training step of each implementation.'
    )
    parser.add_argument('--arch', choices=list(ARCHS), nargs='+', default=['b'], help='encoders')
    parser.add_argument('--json', type=Path, help='file to write the figures to')
    args = parser.parse_args()
    # Tuned implementations compute the same.
    names = [name for name in IMPLEMENTATIONS if not name.endswith(', tuned') and name != GRAPHS]
    table = Table(title=f'GFLOP of a step per image, counted by torch {torch.__version__}')
    table.add_column('')
    counts: dict[str, dict[str, int]] = {}
    for key in args.arch:
        table.add_column(ARCHS[key].name, justify='right')
        counts[key] = {}
        for name in names:
            try:
                counts[key][name] = count(name, ARCHS[key])
            except ImportError as error:
                Console(stderr=True).print(f'skipping {name}: {error}', markup=False)
    for name in names:
        cells = []
        for key in args.arch:
            flops, own = counts[key].get(name), counts[key]['mae_plugin']
            cells.append('' if flops is None else f'{flops / 1e9:.2f} ({flops / own:.3f})')
        table.add_row(name, *cells)
    Console(width=100).print(table)
    if args.json:
        args.json.write_text(json.dumps(counts, indent=2) + '\n')


if __name__ == '__main__':
    main()
