"""Times MAE's training step in this plugin and its rivals, taking turns within one run.

python -m benchmarks.train_step                                  # on a GPU: ViT-B, L and H, batch 64 and 512
python -m benchmarks.train_step --arch b tiny --batch 8          # what a CPU can do in some minutes

Images are random uint8 on the device already; a step normalises them and goes from there to updated
weights.
"""

from __future__ import annotations

import argparse
import random
import statistics
import time
from pathlib import Path

import torch
from flops import count
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from .baselines import ARCHS, GRAPHS, SIDES, Side, build
from .report import circumstances, synchronize, write_json

LOG = Console(stderr=True)


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description="Time MAE's training step in every implementation."
    )
    parser.add_argument(
        '--arch', choices=list(ARCHS), nargs='+', help='encoders; all that the device has room for'
    )
    parser.add_argument('--batch', type=int, nargs='+', help='images a step')
    sides = [name for name in SIDES if name != GRAPHS or torch.cuda.is_available()]
    parser.add_argument('--sides', choices=sides, nargs='+', default=sides, help='implementations')
    parser.add_argument('--rounds', type=int, default=5, help='turns of every side')
    parser.add_argument(
        '--seconds', type=float, default=3.0, help='length of a turn; at least one step'
    )
    parser.add_argument('--threads', type=int, help="CPU threads; torch's default if left out")
    parser.add_argument(
        '--no-compile', action='store_true', help='do not compile the tuned sides on a GPU'
    )
    parser.add_argument('--json', type=Path, help='file to write the figures to')
    return parser.parse_args()


def matmul_rate(device: torch.device) -> float:
    """The best FLOP/s that this device shows for a large matrix product, in the precision of the
    steps.
    """
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
    """A side's times of a step, and its peak memory."""

    def __init__(self, side: Side, own_memory: int) -> None:
        self.side = side
        self.own_memory = own_memory
        self.times: list[float] = []
        self.peak = 0

    def take(self, images: torch.Tensor, seconds: float) -> None:
        """Steps for some time and notes the mean time of a step."""
        device = images.device
        before = torch.cuda.memory_allocated() if device.type == 'cuda' else 0
        if device.type == 'cuda':
            torch.cuda.reset_peak_memory_stats()
        steps, begin = 0, time.perf_counter()
        while steps == 0 or time.perf_counter() - begin < seconds:
            self.side.step(images)
            steps += 1
            if steps % 10 == 0 or device.type == 'cpu':
                # Without this the host would run ahead of the GPU, and of the clock.
                synchronize(device)
        synchronize(device)
        self.times.append((time.perf_counter() - begin) / steps)
        if device.type == 'cuda':
            self.peak = max(self.peak, torch.cuda.max_memory_allocated() - before + self.own_memory)


def warmed_up(name: str, key: str, images: torch.Tensor, compiled: bool) -> Turns:
    """Builds a side and lets it take its first steps."""
    device = images.device
    before = torch.cuda.memory_allocated() if device.type == 'cuda' else 0
    side = build(name, ARCHS[key], device, compiled)
    for _ in range(3 if device.type == 'cuda' else 1):
        side.step(images)
    synchronize(device)
    return Turns(side, torch.cuda.memory_allocated() - before if device.type == 'cuda' else 0)


def measure(
    args: argparse.Namespace, key: str, batch: int, device: torch.device
) -> dict[str, dict[str, float]]:
    """Times every side on one encoder and batch size, and counts its FLOPs."""
    images = torch.randint(0, 256, (batch, 3, 224, 224), dtype=torch.uint8, device=device)
    turns: dict[str, Turns] = {}
    with Progress(console=LOG) as progress:
        work = progress.add_task(
            f'{ARCHS[key].name}, batch {batch}', total=len(args.sides) * (args.rounds + 1)
        )
        for name in args.sides:
            try:
                turns[name] = warmed_up(
                    name, key, images, device.type == 'cuda' and not args.no_compile
                )
            except (ImportError, torch.OutOfMemoryError) as error:
                LOG.print(f'{name} is left out: {str(error).splitlines()[0]}', markup=False)
            progress.advance(work)
        for _ in range(args.rounds):
            # A side pays for what the one before it left behind, so that one must not always be the
            # same.
            for name in random.sample(list(turns), len(turns)):
                try:
                    turns[name].take(images, args.seconds)
                except torch.OutOfMemoryError as error:
                    # The sides that came after it take room too; fewer --sides leave more.
                    LOG.print(f'{name} is left out: {str(error).splitlines()[0]}', markup=False)
                    del turns[name]
                progress.advance(work)
    if not turns:
        raise SystemExit(f'no side has room for {batch} images; give a smaller --batch')
    reference = next(iter(turns.values()))
    return {
        name: dict(
            step_s=statistics.median(turn.times),
            spread=(max(turn.times) - min(turn.times)) / statistics.median(turn.times),
            # Paired within a round, so that the machine's drift hits both sides of a ratio.
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
    """Prints one table."""
    table = Table(title=f'{ARCHS[key].name}, batch {batch}')
    heads = (
        '',
        'images/s',
        'ms a step',
        'spread',
        f'step / {next(iter(figures))}',
        'GiB at peak',
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
