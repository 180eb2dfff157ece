"""Measures the overhead of mmengine's Runner, with hooks of this plugin and of mmengine.

python -m benchmarks.runner_overhead

Prints three tables: the time of a step with and without the Runner; the time of the hooks by length
of the history, with the number of reads from the device per step; and the time of the optimizer by
parameter groups.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
import uuid
from pathlib import Path

import numpy as np
import torch
from mae_plugin.utils._compat.mmengine import set_train_dataset
from mmengine.config import Config
from mmengine.hooks import Hook
from mmengine.logging import HistoryBuffer
from mmengine.runner import Runner
from mmpretrain.structures import DataSample
from rich.console import Console
from rich.progress import track
from rich.table import Table
from torch.utils.data import Dataset

from .baselines import ARCHS, CONFIGS, build
from .report import circumstances, synchronize, write_json

LOG = Console(stderr=True)


class RandomImages(Dataset):
    """Dataset that repeats one random image, so that loading takes almost no time."""

    metainfo: dict = {}

    def __init__(self, size: int, number: int = 1_000_000) -> None:
        self.image = torch.randint(0, 256, (3, size, size), dtype=torch.uint8)
        self.number = number

    def __len__(self) -> int:
        return self.number

    def __getitem__(self, index: int) -> dict:
        return dict(inputs=self.image, data_samples=DataSample())


def make_runner(
    args: argparse.Namespace, work_dir: str, stock: bool, iterations: int, fused: bool | None = None
) -> Runner:
    """Builds the Runner of a pre-training config.

    ``stock=True`` replaces loop, hooks and parameter groups by those of mmengine.
    """
    cfg = Config.fromfile(CONFIGS / 'mae_vit-base-p16_8xb512-amp-coslr-300e_in1k.py')
    arch = ARCHS[args.arch]
    cfg.model.backbone.update(arch=arch.mmpretrain, patch_size=arch.patch, img_size=args.img_size)
    cfg.train_cfg = dict(type='ResumableIterLoop', max_iters=iterations)
    cfg.default_hooks.checkpoint.update(interval=10**9, by_epoch=False, save_last=False)
    cfg.log_processor = dict(by_epoch=False)
    if stock:
        cfg.train_cfg.type = 'IterBasedTrainLoop'
        cfg.default_hooks.runtime_info.type = 'RuntimeInfoHook'
        cfg.default_hooks.checkpoint.type = 'CheckpointHook'
        cfg.optim_wrapper.constructor = 'DefaultOptimWrapperConstructor'
        cfg.optim_wrapper.optimizer.fused = fused
    cfg.merge_from_dict(
        dict(work_dir=work_dir, experiment_name=uuid.uuid4().hex, log_level='WARNING')
    )
    for name in ('test_dataloader', 'test_cfg', 'test_evaluator'):
        cfg[name] = None
    sampler = dict(type='InfiniteSampler', shuffle=False)
    cfg.train_dataloader.update(
        batch_size=args.batch,
        num_workers=args.workers,
        persistent_workers=args.workers > 0,
        pin_memory=torch.cuda.is_available(),
        sampler=sampler,
        dataset=dict(type='PLACEHOLDER'),
    )
    runner = Runner.from_cfg(cfg)
    # The Runner writes the config as text, which cannot hold a class.
    set_train_dataset(runner, dict(type=RandomImages, size=args.img_size))
    return runner


def time_of_a_step(args: argparse.Namespace, device: torch.device) -> dict[str, list[float]]:
    """Measures the seconds of a step: bare, with the hooks of this plugin, and with mmengine's."""
    implementation = build(
        'mae_plugin',
        ARCHS[args.arch],
        device,
        compile_tuned=device.type == 'cuda',
        img_size=args.img_size,
    )
    images = torch.randint(
        0, 256, (args.batch, 3, args.img_size, args.img_size), dtype=torch.uint8, device=device
    )
    times: dict[str, list[float]] = {
        'bare step': [],
        'Runner, ours': [],
        "Runner, mmengine's own": [],
    }
    for _ in track(range(args.rounds), description='steps', console=LOG):
        for name, taken in times.items():
            if name == 'bare step':
                # As many warm-up steps as for the Runner.
                for _ in range(args.steps):
                    implementation.step(images)
                synchronize(device)
                begin = time.perf_counter()
                for _ in range(args.steps):
                    implementation.step(images)
                synchronize(device)
                taken.append((time.perf_counter() - begin) / args.steps)
            else:
                with tempfile.TemporaryDirectory() as folder:
                    runner = make_runner(args, folder, name != 'Runner, ours', 2 * args.steps)
                    stopwatch = Stopwatch(args.steps)
                    runner.register_hook(stopwatch, 'LOWEST')
                    runner.train()
                taken.append(stopwatch.seconds)
    return times


class Stopwatch(Hook):
    """Hook that measures the second half of a run."""

    def __init__(self, steps: int) -> None:
        self.steps = steps

    def after_train_iter(
        self, runner: Runner, batch_idx: int, data_batch=None, outputs=None
    ) -> None:
        if runner.iter + 1 in (self.steps, 2 * self.steps):
            if torch.cuda.is_available():
                torch.cuda.synchronize()
            now = time.perf_counter()
            if runner.iter + 1 == self.steps:
                self.begin = now
            else:
                self.seconds = (now - self.begin) / self.steps


def time_of_hooks(args: argparse.Namespace, lengths: list[int]) -> dict[int, dict[str, float]]:
    """Measures the seconds of all hooks per step, with logging, by length of the history."""
    result: dict[int, dict[str, list[float]]] = {
        length: {'ours': [], 'stock': []} for length in lengths
    }
    small = argparse.Namespace(
        **{**vars(args), 'arch': 'tiny', 'img_size': 32, 'batch': 2, 'workers': 0}
    )
    with tempfile.TemporaryDirectory() as folder:
        runners = {
            name: make_runner(small, f'{folder}/{name}', name == 'stock', 2)
            for name in ('ours', 'stock')
        }
        for runner in runners.values():
            runner.train()
        for _ in track(range(args.rounds), description='hooks', console=LOG):
            for length in lengths:
                for name, runner in runners.items():
                    result[length][name].append(_hooks_once(runner, length))
    return {
        length: {name: statistics.median(times) for name, times in of.items()}
        for length, of in result.items()
    }


def _hooks_once(runner: Runner, length: int, steps: int = 200) -> float:
    scalars = runner.message_hub.log_scalars
    for name in list(scalars):
        scalars[name] = HistoryBuffer(np.zeros(length), np.ones(length))
    for hook in runner.hooks:
        if type(hook).__name__ == 'LeanRuntimeInfoHook':
            # LeanRuntimeInfoHook keeps at most `history` steps.
            for name in list(scalars):
                kept = min(length, hook.history)
                scalars[name] = HistoryBuffer(np.zeros(kept), np.ones(kept))
    outputs = dict(loss=torch.tensor(1.0))
    begin = time.perf_counter()
    for i in range(steps):
        runner.call_hook('before_train_iter', batch_idx=i, data_batch=None)
        runner.call_hook('after_train_iter', batch_idx=i, data_batch=None, outputs=outputs)
    return (time.perf_counter() - begin) / steps


def reads_per_step(args: argparse.Namespace) -> dict[str, float]:
    """Counts the reads of a number from a tensor per step, between two lines of the log."""
    small = argparse.Namespace(
        **{**vars(args), 'arch': 'tiny', 'img_size': 32, 'batch': 2, 'workers': 0}
    )
    counts, steps = {}, 20
    item = torch.Tensor.item
    for name in ('ours', 'stock'):
        reads: list[None] = []

        def counted(tensor: torch.Tensor, reads: list = reads) -> object:
            if tensor.is_floating_point():
                reads.append(None)
            return item(tensor)

        with tempfile.TemporaryDirectory() as folder:
            # On a CPU, AdamW without fused=True reads one number per tensor; on a GPU it does not.
            runner = make_runner(small, folder, name == 'stock', steps, fused=True)
            torch.Tensor.item = counted
            try:
                runner.train()
            finally:
                torch.Tensor.item = item
        counts[name] = len(reads) / steps
    return counts


def time_of_optimizer(args: argparse.Namespace, device: torch.device) -> dict[str, float]:
    """Measures the host time of an AdamW step: merged groups and fused, or a group per tensor."""
    implementations = {
        'merged groups, fused': build('mae_plugin', ARCHS[args.optimizer_arch], device, False),
        'a group per tensor': build('mmpretrain', ARCHS[args.optimizer_arch], device, False),
    }
    for implementation in implementations.values():
        for parameter in implementation.model.parameters():
            parameter.grad = torch.zeros_like(parameter) if parameter.requires_grad else None
        implementation.optimizer.step()
    times: dict[str, list[float]] = {name: [] for name in implementations}
    for _ in track(range(args.rounds), description='optimizer', console=LOG):
        for name, implementation in implementations.items():
            synchronize(device)
            begin = time.perf_counter()
            # Without a synchronization, because the host time delays a step.
            implementation.optimizer.step()
            times[name].append(time.perf_counter() - begin)
    return {name: statistics.median(taken) for name, taken in times.items()}


def main() -> None:
    parser = argparse.ArgumentParser(
        description='Measure the overhead of the Runner in a training step.'
    )
    cuda = torch.cuda.is_available()
    parser.add_argument(
        '--arch', choices=list(ARCHS), default='b' if cuda else 'tiny', help='encoder'
    )
    parser.add_argument(
        '--optimizer-arch', choices=list(ARCHS), default='b', help='encoder of the optimizer table'
    )
    parser.add_argument('--batch', type=int, default=64 if cuda else 4, help='images per step')
    parser.add_argument('--img-size', type=int, default=224 if cuda else 64, help='pixels')
    parser.add_argument('--workers', type=int, default=8 if cuda else 0, help='data-loader workers')
    parser.add_argument(
        '--steps', type=int, default=100 if cuda else 30, help='measured steps of a run'
    )
    parser.add_argument('--rounds', type=int, default=5, help='rounds per implementation')
    parser.add_argument('--json', type=Path, help='file to write the figures to')
    args = parser.parse_args()
    device = torch.device('cuda' if cuda else 'cpu')
    where = circumstances(device)
    print(', '.join(f'{name} {value}' for name, value in where.items()))

    steps = time_of_a_step(args, device)
    bare = steps['bare step']
    table = Table(title=f'{ARCHS[args.arch].name}, {args.img_size} px, batch {args.batch}')
    for head in ('', 'ms per step', 'over the bare step'):
        table.add_column(head, justify='right' if head else 'left')
    for name, times in steps.items():
        ratio = statistics.median(t / b for t, b in zip(times, bare, strict=True))
        table.add_row(name, f'{1e3 * statistics.median(times):.2f}', f'{ratio - 1:+.1%}')
    Console(width=100).print(table)

    lengths = [1_000, 100_000, 500_000, 1_000_000]
    hooks, reads = time_of_hooks(args, lengths), reads_per_step(args)
    table = Table(title='all hooks, microseconds per step')
    for head in ('steps in the history', 'ours', "mmengine's own", 'ratio'):
        table.add_column(head, justify='right')
    for length, of in hooks.items():
        table.add_row(
            f'{length:,}',
            f'{1e6 * of["ours"]:.0f}',
            f'{1e6 * of["stock"]:.0f}',
            f'{of["stock"] / of["ours"]:.1f}',
        )
    table.add_row('reads of a tensor per step', f'{reads["ours"]:g}', f'{reads["stock"]:g}', '')
    Console(width=100).print(table)

    optimizer = time_of_optimizer(args, device)
    table = Table(title=f"AdamW of {ARCHS[args.optimizer_arch].name}'s MAE")
    table.add_column('')
    table.add_column('ms on the host', justify='right')
    for name, seconds in optimizer.items():
        table.add_row(name, f'{1e3 * seconds:.1f}')
    Console(width=100).print(table)
    write_json(
        args.json,
        circumstances=where,
        steps=steps,
        hooks=hooks,
        reads_per_step=reads,
        optimizer=optimizer,
    )


if __name__ == '__main__':
    main()
