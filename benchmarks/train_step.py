"""Compares the time of a training step of MAE between implementations, in turns within one run.

python -m benchmarks.train_step                             # GPU: ViT-B, L, H, batch 64 and 512
python -m benchmarks.train_step --arch b tiny --batch 8     # CPU: some minutes

Images are random uint8 tensors on the device. A step normalizes them, and computes and applies an
update.
"""

from __future__ import annotations

import argparse
import random
import statistics
import time
from pathlib import Path

import torch
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from .baselines import ARCHS, GRAPHS, IMPLEMENTATIONS, Implementation, build
from .flops import count
from .report import circumstances, synchronize, write_json

LOG = Console(stderr=True)


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description='Compare the time of a training step of MAE between implementations.'
    )
    parser.add_argument(
        '--arch', choices=list(ARCHS), nargs='+', help='encoders (default: all that fit the device)'
    )
    parser.add_argument('--batch', type=int, nargs='+', help='images per step')
    names = [name for name in IMPLEMENTATIONS if name != GRAPHS or torch.cuda.is_available()]
    parser.add_argument(
        '--implementations', choices=names, nargs='+', default=names, help='implementations'
    )
    parser.add_argument('--rounds', type=int, default=5, help='rounds per implementation')
    parser.add_argument(
        '--seconds', type=float, default=3.0, help='seconds per round; at least one step'
    )
    parser.add_argument('--threads', type=int, help='CPU threads (default: as in torch)')
    parser.add_argument(
        '--no-compile',
        action='store_true',
        help='do not compile the tuned implementations on a GPU',
    )
    parser.add_argument('--json', type=Path, help='file to write the figures to')
    return parser.parse_args()


def matmul_rate(device: torch.device) -> float:
    """Measures the maximum FLOP/s of a large matrix product in the precision of the steps."""
    size, dtype = (8192, torch.bfloat16) if device.type == 'cuda' else (2048, torch.float32)
    a, b = (torch.randn(size, size, device=device, dtype=dtype) for _ in range(2))
    rates = []
    for _ in range(20):
        synchronize(device)
        begin = time.perf_counter()
        a @ b
        synchronize(device)
        rates.append(2 * size**3 / (time.perf_counter() - begin))
    return max(rates)


class Turns:
    """Step times and peak memory of one implementation."""

    def __init__(self, implementation: Implementation, own_memory: int) -> None:
        self.implementation = implementation
        self.own_memory = own_memory
        self.times: list[float] = []
        self.peak = 0

    def take(self, images: torch.Tensor, seconds: float) -> None:
        """Runs steps for some seconds and records the mean time of a step."""
        device = images.device
        before = torch.cuda.memory_allocated() if device.type == 'cuda' else 0
        if device.type == 'cuda':
            torch.cuda.reset_peak_memory_stats()
        steps, begin = 0, time.perf_counter()
        while steps == 0 or time.perf_counter() - begin < seconds:
            self.implementation.step(images)
            steps += 1
            if steps % 10 == 0 or device.type == 'cpu':
                # Otherwise the host would queue steps faster than the GPU runs them.
                synchronize(device)
        synchronize(device)
        self.times.append((time.perf_counter() - begin) / steps)
        if device.type == 'cuda':
            self.peak = max(self.peak, torch.cuda.max_memory_allocated() - before + self.own_memory)


def warmed_up(name: str, key: str, images: torch.Tensor, compiled: bool) -> Turns:
    """Builds an implementation and runs its first steps."""
    device = images.device
    before = torch.cuda.memory_allocated() if device.type == 'cuda' else 0
    implementation = build(name, ARCHS[key], device, compiled)
    for _ in range(3 if device.type == 'cuda' else 1):
        implementation.step(images)
    synchronize(device)
    return Turns(
        implementation, torch.cuda.memory_allocated() - before if device.type == 'cuda' else 0
    )


def measure(
    args: argparse.Namespace, key: str, batch: int, device: torch.device
) -> dict[str, dict[str, float]]:
    """Measures all implementations with one encoder and batch size, and counts their FLOPs."""
    images = torch.randint(0, 256, (batch, 3, 224, 224), dtype=torch.uint8, device=device)
    turns: dict[str, Turns] = {}
    with Progress(console=LOG) as progress:
        work = progress.add_task(
            f'{ARCHS[key].name}, batch {batch}', total=len(args.implementations) * (args.rounds + 1)
        )
        for name in args.implementations:
            try:
                turns[name] = warmed_up(
                    name, key, images, device.type == 'cuda' and not args.no_compile
                )
            except (ImportError, torch.OutOfMemoryError) as error:
                LOG.print(f'skipping {name}: {str(error).splitlines()[0]}', markup=False)
            progress.advance(work)
        for _ in range(args.rounds):
            # The previous implementation affects caches and memory, so the order is random.
            for name in random.sample(list(turns), len(turns)):
                try:
                    turns[name].take(images, args.seconds)
                except torch.OutOfMemoryError as error:
                    # Later implementations also use memory; fewer --implementations leave more.
                    LOG.print(f'skipping {name}: {str(error).splitlines()[0]}', markup=False)
                    del turns[name]
                progress.advance(work)
    if not turns:
        raise SystemExit(f'no implementation fits --batch {batch} into memory; use a smaller value')
    reference = next(iter(turns.values()))
    return {
        name: dict(
            step_s=statistics.median(turn.times),
            spread=(max(turn.times) - min(turn.times)) / statistics.median(turn.times),
            # Ratios are paired within a round, so a drift of the machine cancels out.
            ratio=statistics.median(
                t / o for t, o in zip(turn.times, reference.times, strict=True)
            ),
            images_s=batch / statistics.median(turn.times),
            peak_bytes=turn.peak,
            flops_per_image=count(name, ARCHS[key]),
        )
        for name, turn in turns.items()
    }


def show(key: str, batch: int, figures: dict[str, dict[str, float]], rate: float) -> None:
    """Prints the table of one encoder and batch size."""
    table = Table(title=f'{ARCHS[key].name}, batch {batch}')
    heads = (
        '',
        'images/s',
        'ms per step',
        'spread',
        f'step / {next(iter(figures))}',
        'peak GiB',
        'TFLOP/s',
        'of matmul',
    )
    for head in heads:
        table.add_column(head, justify='right' if head else 'left')
    for name, of in figures.items():
        achieved = of['flops_per_image'] * of['images_s']
        table.add_row(
            name,
            f'{of["images_s"]:.1f}',
            f'{1e3 * of["step_s"]:.1f}',
            f'{of["spread"]:.0%}',
            f'{of["ratio"]:.2f}',
            f'{of["peak_bytes"] / 2**30:.1f}' if of['peak_bytes'] else '',
            f'{achieved / 1e12:.3g}',
            f'{achieved / rate:.0%}',
        )
    Console(width=120).print(table)


def main() -> None:
    args = parse_args()
    device = torch.device('cuda' if torch.cuda.is_available() else 'cpu')
    if args.threads:
        torch.set_num_threads(args.threads)
    where = circumstances(device)
    print(', '.join(f'{name} {value}' for name, value in where.items()))
    rate = matmul_rate(device)
    print(f'matrix products: {rate / 1e12:.3g} TFLOP/s')
    results: dict[str, dict] = {}
    for key in args.arch or (['b', 'l', 'h'] if device.type == 'cuda' else ['b', 'tiny']):
        for batch in args.batch or ([64, 512] if device.type == 'cuda' else [8]):
            figures = measure(args, key, batch, device)
            show(key, batch, figures, rate)
            results[f'{key}-{batch}'] = figures
            write_json(args.json, circumstances=where, matmul_flops=rate, results=results)


if __name__ == '__main__':
    main()
