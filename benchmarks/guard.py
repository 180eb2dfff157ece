"""Measures the cost of skipping updates that are not finite, and of stopping on a signal.

python -m benchmarks.guard

Alternates between a whole step and the operations that the guard adds, on gradients of the same
model. The last row is the exchange between ranks after every step, measured alone. In training, the
exchange overlaps with the next step.
"""

from __future__ import annotations

import argparse
import os
import statistics
import time
from pathlib import Path
from types import SimpleNamespace

import torch
from mae_plugin.engine import AutoAmpOptimWrapper, PreemptionHook
from rich.console import Console
from rich.progress import track
from rich.table import Table

from .baselines import ARCHS, build
from .report import circumstances, synchronize, write_json

LOG = Console(stderr=True)


class NoUpdate(torch.optim.SGD):
    """Optimizer without an update, so that the time of an update is that of the guard."""

    _step_supports_amp_scaling = True

    def step(self, closure=None) -> None:
        """Does nothing."""

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Keeps the gradients for the next round."""


def time_of_guard(args: argparse.Namespace, device: torch.device) -> dict[str, list[float]]:
    """Measures the seconds of a step and of the guard, in turns."""
    implementation = build(
        'mae_plugin', ARCHS[args.arch], device, compile_tuned=device.type == 'cuda'
    )
    images = torch.randint(0, 256, (args.batch, 3, 224, 224), dtype=torch.uint8, device=device)
    parameters = [p for p in implementation.model.parameters() if p.requires_grad]
    guard = AutoAmpOptimWrapper(optimizer=NoUpdate(parameters, lr=0.0))
    times: dict[str, list[float]] = {'step': [], 'guard': []}

    def timed(name: str, work: object) -> None:
        synchronize(device)
        begin = time.perf_counter()
        work()
        synchronize(device)
        times[name].append(time.perf_counter() - begin)

    implementation.step(images)
    for _ in track(range(args.rounds), description='rounds', console=LOG):
        timed('step', lambda: implementation.step(images))
        for parameter in parameters:
            parameter.grad = torch.full_like(parameter, 1e-3)
        loss = torch.ones((), device=device, requires_grad=True)
        timed('guard', lambda loss=loss: guard.update_params(loss))
    return times


def time_of_exchange(steps: int, port: int) -> float:
    """Measures the seconds per step of the exchange of stop signals between two processes."""
    child = os.fork()
    rank = int(child == 0)
    torch.distributed.init_process_group('gloo', f'tcp://127.0.0.1:{port}', rank=rank, world_size=2)
    hook = PreemptionHook()
    hook.before_train(SimpleNamespace(world_size=2))
    begin = time.perf_counter()
    for _ in range(steps):
        hook.after_train_iter(None, 0)
    hook.after_train(None)
    seconds = (time.perf_counter() - begin) / steps
    torch.distributed.destroy_process_group()
    if rank:
        os._exit(0)
    os.waitpid(child, 0)
    return seconds


def main() -> None:
    parser = argparse.ArgumentParser(
        description='Measure the overhead of the guard in a training step.'
    )
    cuda = torch.cuda.is_available()
    parser.add_argument('--arch', choices=list(ARCHS), default='b', help='encoder')
    parser.add_argument('--batch', type=int, default=64 if cuda else 8, help='images per step')
    parser.add_argument('--rounds', type=int, default=50 if cuda else 10, help='rounds')
    parser.add_argument('--port', type=int, default=29511, help='free port for the exchange')
    parser.add_argument('--json', type=Path, help='file to write the figures to')
    args = parser.parse_args()
    # Before any threads start, because a forked process would lack them.
    exchange = time_of_exchange(1000, args.port)
    device = torch.device('cuda' if cuda else 'cpu')
    where = circumstances(device)
    print(', '.join(f'{name} {value}' for name, value in where.items()))

    times = time_of_guard(args, device)
    shares = [guard / step for guard, step in zip(times['guard'], times['step'], strict=True)]
    table = Table(title=f'{ARCHS[args.arch].name}, batch {args.batch}')
    for head in ('', 'ms', 'of the step', 'at most'):
        table.add_column(head, justify='right' if head else 'left')
    table.add_row('step', f'{1e3 * statistics.median(times["step"]):.1f}', '', '')
    share, most = f'{statistics.median(shares):.2%}', f'{max(shares):.2%}'
    table.add_row('guard', f'{1e3 * statistics.median(times["guard"]):.1f}', share, most)
    table.add_row('exchange, two processes', f'{1e3 * exchange:.2f}', '', '')
    Console(width=100).print(table)
    write_json(args.json, circumstances=where, times=times, exchange=exchange)


if __name__ == '__main__':
    main()
