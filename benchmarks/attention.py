"""Compares the kernels of scaled_dot_product_attention at the lengths and head sizes of MAE.

python -m benchmarks.attention

Forward and backward, in bfloat16 on a GPU and float32 on a CPU. The models use the choice of torch,
which is the first column.
"""

from __future__ import annotations

import argparse
import statistics
import time
from contextlib import nullcontext
from pathlib import Path

import torch
from rich.console import Console
from rich.progress import track
from rich.table import Table
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.functional import scaled_dot_product_attention

from .report import circumstances, synchronize, write_json

# Layers of MAE: (heads, length, head size).
SHAPES = {
    'encoder of B, 75 % masked': (12, 50, 64),
    'encoder of L, 75 % masked': (16, 50, 64),
    'encoder of H, 75 % masked': (16, 65, 80),
    'decoder of B and L': (16, 197, 32),
    'decoder of H': (16, 257, 32),
    'fine-tuning B': (12, 197, 64),
    'fine-tuning H': (16, 257, 80),
}
KERNELS = {
    "torch's choice": None,
    'flash': SDPBackend.FLASH_ATTENTION,
    'efficient': SDPBackend.EFFICIENT_ATTENTION,
    'cuDNN': SDPBackend.CUDNN_ATTENTION,
    'plain': SDPBackend.MATH,
}


def seconds(
    kernel: SDPBackend | None, qkv: torch.Tensor, gradient: torch.Tensor, repeats: int
) -> float:
    """Measures the mean seconds of a forward and a backward pass.

    Raises:
        RuntimeError: if the kernel does not support such tensors.
    """
    synchronize(qkv.device)
    begin = time.perf_counter()
    with nullcontext() if kernel is None else sdpa_kernel(kernel):
        for _ in range(repeats):
            # As in the layers: one projection gives all three, and heads are joined at the end.
            query, key, value = qkv.permute(2, 0, 3, 1, 4).unbind(0)  # each (B, heads, L, size)
            scaled_dot_product_attention(query, key, value).transpose(1, 2).flatten(2).backward(
                gradient
            )
            qkv.grad = None
    synchronize(qkv.device)
    return (time.perf_counter() - begin) / repeats


def main() -> None:
    parser = argparse.ArgumentParser(description='Compare attention kernels at the shapes of MAE.')
    cuda = torch.cuda.is_available()
    parser.add_argument('--batch', type=int, default=512 if cuda else 8, help='images')
    parser.add_argument('--rounds', type=int, default=20, help='rounds per kernel')
    parser.add_argument('--json', type=Path, help='file to write the figures to')
    args = parser.parse_args()
    device, dtype = (
        torch.device('cuda' if cuda else 'cpu'),
        torch.bfloat16 if cuda else torch.float32,
    )
    where = circumstances(device)
    print(', '.join(f'{name} {value}' for name, value in where.items()))

    table = Table(
        title=f'attention, forward and backward, ms for {args.batch} images in {str(dtype)[6:]}'
    )
    for head in ('', 'heads', 'length', 'head size', *KERNELS):
        table.add_column(head, justify='right' if head else 'left')
    figures: dict[str, dict[str, float]] = {}
    for place, (heads, length, size) in track(
        SHAPES.items(), 'shapes', console=Console(stderr=True)
    ):
        qkv = torch.randn(
            args.batch, length, 3, heads, size, device=device, dtype=dtype, requires_grad=True
        )
        gradient = torch.randn(args.batch, length, heads * size, device=device, dtype=dtype)
        times: dict[str, list[float]] = {}
        for name, kernel in KERNELS.items():
            try:
                seconds(kernel, qkv, gradient, 1)
            except RuntimeError:
                continue
            times[name] = []
        for _ in range(args.rounds):
            for name, taken in times.items():
                taken.append(seconds(KERNELS[name], qkv, gradient, 20 if cuda else 1))
        figures[place] = {name: statistics.median(taken) for name, taken in times.items()}
        cells = [f'{1e3 * figures[place][name]:.2f}' if name in times else '' for name in KERNELS]
        table.add_row(place, str(heads), str(length), str(size), *cells)
    Console(width=120).print(table)
    write_json(args.json, circumstances=where, batch=args.batch, seconds=figures)


if __name__ == '__main__':
    main()
