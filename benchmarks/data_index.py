"""Measures the cost of an index of many images: time to build and reopen, memory of workers.

python -m benchmarks.data_index

The first table uses a folder tree of small files. The second uses an index of images that do not
exist: workers read names from it as they do before they read files.
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import torch
from mae_plugin.data import IndexedImages
from mae_plugin.data.sources.index import Names
from mae_plugin.engine.loops.sampler import ResumableSampler, SeededDataset
from mae_plugin.utils._compat.torch import kill_loader_workers, loader_workers
from mmengine.dataset import pseudo_collate
from mmpretrain.datasets import CustomDataset
from rich.console import Console
from rich.progress import track
from rich.table import Table
from safetensors import safe_open
from safetensors.torch import save_file
from torch.utils.data import DataLoader

from .report import circumstances, write_json

LOG = Console(stderr=True)


def make_tree(root: Path, images: int, per_folder: int = 1000) -> None:
    """Writes small files into folders of ``per_folder`` files."""
    for first in track(range(0, images, per_folder), description='files', console=LOG):
        folder = root / f'{first // per_folder:06d}'
        folder.mkdir(parents=True)
        for i in range(first, min(images, first + per_folder)):
            (folder / f'{i:09d}.jpg').write_bytes(b'\xff\xd8')


def time_opening(root: Path, folder: Path, rounds: int) -> dict[str, list[float]]:
    """Measures the seconds to list a folder: first time, second time, and by mmpretrain."""
    times: dict[str, list[float]] = {
        'first time': [],
        'second time': [],
        "mmpretrain's CustomDataset": [],
    }
    # An index of a folder that has just changed is not reused.
    time.sleep(3)
    for i in range(rounds):
        for name, taken in times.items():
            begin = time.perf_counter()
            if name.startswith('mmpretrain'):
                CustomDataset(data_root=str(root), with_label=False)
            else:
                IndexedImages(data_root=str(root), index_dir=str(folder / str(i)))
            taken.append(time.perf_counter() - begin)
    return times


def write_large_index(root: Path, folder: Path, images: int) -> None:
    """Writes an index that lists ``images`` images for a folder that holds one."""
    (root / 'some').mkdir(parents=True)
    (root / 'some' / 'image.jpg').write_bytes(b'\xff\xd8')
    time.sleep(3)
    IndexedImages(data_root=str(root), index_dir=str(folder))
    (path,) = folder.glob('*.safetensors')
    with safe_open(path, 'pt') as file:
        arrays = {name: file.get_tensor(name).clone() for name in file.keys()}  # noqa: SIM118
        notes = file.metadata()
    arrays['text'], arrays['ends'] = Names.arrays(f'some/image_{i:09d}.jpg' for i in range(images))
    save_file(arrays, path, metadata=notes)


def memory_of_workers(root: Path, folder: Path, workers: int, batches: int) -> list[dict[str, int]]:
    """Measures RSS, PSS and USS of each worker in bytes after ``batches`` batches of 256."""
    images = SeededDataset(IndexedImages(data_root=str(root), index_dir=str(folder), pipeline=[]))
    sampler = ResumableSampler(images, seed=0)
    loader = DataLoader(
        images, 256, sampler=sampler, num_workers=workers, collate_fn=pseudo_collate
    )
    running = iter(loader)
    for _ in track(range(batches), description=f'{workers} workers', console=LOG):
        next(running)
    found = [dict(_memory(worker.pid)) for worker in loader_workers(running)]
    kill_loader_workers(running)
    return found


def _memory(pid: int) -> Iterator[tuple[str, int]]:
    lines = Path(f'/proc/{pid}/smaps_rollup').read_text().splitlines()[1:]
    sizes = {line.split(':')[0]: int(line.split()[1]) * 1024 for line in lines}
    yield 'rss', sizes['Rss']
    yield 'pss', sizes['Pss']
    yield 'uss', sizes['Private_Clean'] + sizes['Private_Dirty']


def main() -> None:
    parser = argparse.ArgumentParser(description='Measure the cost of an index of many images.')
    parser.add_argument('--files', type=int, default=100_000, help='files of the folder tree')
    parser.add_argument('--entries', type=int, default=10_000_000, help='images of the large index')
    parser.add_argument(
        '--workers', type=int, nargs='+', default=[1, 2, 4], help='data-loader workers'
    )
    parser.add_argument(
        '--batches', type=int, default=2000, help='batches of 256 before memory is measured'
    )
    parser.add_argument('--rounds', type=int, default=5, help='rounds')
    parser.add_argument('--json', type=Path, help='file to write the figures to')
    args = parser.parse_args()
    where = circumstances(torch.device('cpu'))
    print(', '.join(f'{name} {value}' for name, value in where.items()))
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        make_tree(folder / 'tree', args.files)
        times = time_opening(folder / 'tree', folder / 'indices', args.rounds)
        table = Table(title=f'listing {args.files:,} files')
        table.add_column('')
        table.add_column('seconds', justify='right')
        for name, taken in times.items():
            table.add_row(name, f'{statistics.median(taken):.3f}')
        Console(width=100).print(table)

        write_large_index(folder / 'few', folder / 'index', args.entries)
        table = Table(title=f'an index of {args.entries:,} images: MB per worker')
        for head in ('workers', 'RSS', 'PSS (proportional share)', 'USS (unique)'):
            table.add_column(head, justify='right')
        memory = {}
        for workers in args.workers:
            memory[workers] = memory_of_workers(
                folder / 'few', folder / 'index', workers, args.batches
            )
            greatest = (
                max(worker[name] for worker in memory[workers]) for name in ('rss', 'pss', 'uss')
            )
            table.add_row(str(workers), *(f'{size / 1e6:.0f}' for size in greatest))
        Console(width=100).print(table)
    write_json(args.json, circumstances=where, times=times, memory=memory)
    # The workers were killed, and torch would wait for them at exit.
    os._exit(0)


if __name__ == '__main__':
    main()
