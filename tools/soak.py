"""Kills a training run many times, resumes it, and compares it with an uninterrupted run.

python tools/soak.py

A tiny MAE is trained on generated images. SIGKILL hits the run at random moments, while it writes a
checkpoint, or one of its data-loader workers; SIGTERM makes it save and end. A kill is survived if
the next start finds a complete checkpoint (or none was due yet) and continues. At the end, losses
of all steps and final weights must equal those of the uninterrupted run, bit for bit.
"""

import argparse
import json
import os
import random
import signal
import sys
import tempfile
import time
import traceback
from collections import Counter
from pathlib import Path

# Runs are forked from this process, which is only safe while it has no threads.
os.environ['OMP_NUM_THREADS'] = '1'

import mae_plugin
import numpy as np
import torch
from mmengine.config import Config
from mmengine.hooks import Hook
from mmengine.runner import Runner
from PIL import Image
from rich.console import Console
from rich.progress import track
from rich.table import Table

CONFIG = (
    mae_plugin.registry.asset_root() / 'configs/mae/mae_vit-base-p16_8xb512-amp-coslr-300e_in1k.py'
)
WAYS = (
    'at a random moment',
    'while a checkpoint is written',
    'SIGTERM at a random moment',
    'of a data-loader worker',
)
EPOCHS, STEPS_PER_EPOCH, BATCH = 4, 6, 4
COUNTED = 'losses.txt'


class RecordLosses(Hook):
    """Appends the exact loss of every step to a file."""

    def before_run(self, runner: Runner) -> None:
        self._file = open(Path(runner.work_dir, COUNTED), 'a')  # noqa: SIM115  (open until the process ends)

    def after_train_iter(
        self, runner: Runner, batch_idx: int, data_batch=None, outputs=None
    ) -> None:
        print(runner.iter, outputs['loss'].item().hex(), file=self._file, flush=True)


def write_images(folder: Path) -> None:
    """Writes smooth random images for a few batches, and one more."""
    folder.mkdir(parents=True)
    generator = np.random.default_rng(0)
    for i in range(STEPS_PER_EPOCH * BATCH + 1):
        coarse = Image.fromarray(generator.integers(0, 256, (5, 5, 3), dtype=np.uint8))
        coarse.resize((80, 80), Image.Resampling.BICUBIC).save(folder / f'{i:03d}.jpg')


def config(images: Path, work_dir: Path, by_epoch: bool, workers: int) -> Config:
    """Returns a tiny pre-training config with a checkpoint after every second step."""
    cfg = Config.fromfile(CONFIG)
    cfg.merge_from_dict(
        {
            'work_dir': str(work_dir),
            'experiment_name': f'{work_dir.name}-{time.time_ns()}',
            'resume': True,
            'model.backbone.arch': 'deit-tiny',
            'model.backbone.img_size': 64,
            'model.neck': dict(decoder_embed_dim=64, decoder_depth=1, decoder_num_heads=2),
            'train_dataloader.batch_size': BATCH,
            'train_dataloader.num_workers': workers,
            'train_dataloader.persistent_workers': workers > 0,
            'train_dataloader.dataset.data_root': str(images),
            'train_dataloader.dataset.data_prefix': '',
            'train_dataloader.dataset.pipeline.0.scale': 64,
            'param_scheduler.warmup': 1,
            'default_hooks.checkpoint': dict(interval=2, by_epoch=False, max_keep_ckpts=2),
        }
    )
    steps = EPOCHS * STEPS_PER_EPOCH
    kind = dict(type='ResumableEpochLoop', max_epochs=EPOCHS)
    cfg.train_cfg = kind if by_epoch else dict(type='ResumableIterLoop', max_iters=steps)
    return cfg


def start(cfg: Config) -> int:
    """Starts a run in a new process; returns its process id."""
    pid = os.fork()
    if pid == 0:
        Path(cfg.work_dir).mkdir(exist_ok=True)
        log = os.open(Path(cfg.work_dir, 'output.txt'), os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(log, 1)
        os.dup2(log, 2)
        failed = 1
        try:
            runner = Runner.from_cfg(cfg)
            runner.register_hook(RecordLosses())
            runner.train()
            failed = 0
        except SystemExit as ended:
            failed = ended.code
        except BaseException:
            sys.stdout.flush()
            traceback.print_exc()
        finally:
            os._exit(failed)
    return pid


def ended(pid: int) -> int | None:
    """Returns the exit status of a run, or None while it runs."""
    done, status = os.waitpid(pid, os.WNOHANG)
    return status if done else None


def strike(pid: int, way: str, work_dir: Path, seconds: float) -> tuple[bool, int]:
    """Kills a run within ``seconds``.

    Args:
        pid: process id of the run.
        way: one of ``WAYS``.
        work_dir: folder of the run.
        seconds: length of an uninterrupted run.

    Returns:
        Whether the run was killed before it ended, and its exit status.
    """
    moment = time.monotonic() + random.uniform(0, seconds)
    while (status := ended(pid)) is None:
        victim = None
        if time.monotonic() > moment:
            if way in (WAYS[0], WAYS[2]) or (way == WAYS[1] and any(work_dir.glob('*.part'))):
                victim = pid
            elif way == WAYS[3]:
                workers = Path(f'/proc/{pid}/task/{pid}/children').read_text().split()
                victim = int(random.choice(workers)) if workers else None
        if victim:
            os.kill(victim, signal.SIGTERM if way == WAYS[2] else signal.SIGKILL)
            return True, os.waitpid(pid, 0)[1]
        time.sleep(0.0002)
    return False, status


def losses(work_dir: Path) -> dict[int, set[str]]:
    """Returns all losses of each step, of the first run and of those that resumed."""
    result: dict[int, set[str]] = {}
    for line in (work_dir / COUNTED).read_text().splitlines(keepends=True):
        # A kill may leave half a line.
        if line.endswith('\n') and len(parts := line.split()) == 2:
            result.setdefault(int(parts[0]), set()).add(parts[1])
    return result


def weights(work_dir: Path) -> dict[str, torch.Tensor]:
    """Returns the final weights of a run."""
    path = work_dir / f'iter_{EPOCHS * STEPS_PER_EPOCH}.pth'
    return torch.load(path, weights_only=True)['state_dict']


def same(work_dir: Path, reference: Path) -> bool:
    """Returns whether two runs have the same losses and final weights, bit for bit."""
    ours, theirs = weights(work_dir), weights(reference)
    return (
        losses(work_dir) == losses(reference)
        and ours.keys() == theirs.keys()
        and all(torch.equal(ours[key], theirs[key]) for key in ours)
    )


def main() -> int:
    """Kills and resumes runs; returns 0 if nothing was lost."""
    parser = argparse.ArgumentParser(
        description='Kill training many times, and check whether anything is lost.'
    )
    parser.add_argument('--kills', type=int, default=200, help='number of kills')
    parser.add_argument(
        '--workers', type=int, default=2, help='data-loader workers of the killed runs'
    )
    parser.add_argument('--seed', type=int, default=0, help='seed of the random moments')
    parser.add_argument('--json', type=Path, help='file to write the figures to')
    args = parser.parse_args()
    random.seed(args.seed)
    ways = WAYS if args.workers else WAYS[:3]
    struck, survived, halves, finished, identical = Counter(), Counter(), 0, 0, 0

    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder)
        write_images(folder / 'images')
        references, seconds = {}, 0.0
        for by_epoch in (True, False):
            references[by_epoch] = folder / f'undisturbed-{by_epoch}'
            begin = time.monotonic()
            _, status = os.waitpid(
                start(config(folder / 'images', references[by_epoch], by_epoch, workers=0)), 0
            )
            if status:
                sys.exit((references[by_epoch] / 'output.txt').read_text()[-3000:])
            seconds = time.monotonic() - begin

        work_dir, by_epoch, pending = folder / 'run-0', True, None
        kills = iter(track(range(args.kills), description='kills', console=Console(stderr=True)))
        kill = next(kills, None)
        while kill is not None or pending is not None or (work_dir / COUNTED).exists():
            pid = start(config(folder / 'images', work_dir, by_epoch, args.workers))
            way = ways[sum(struck.values()) % len(ways)]
            if kill is None:
                hit, status = False, os.waitpid(pid, 0)[1]
            else:
                hit, status = strike(pid, way, work_dir, seconds)
            if pending is not None and (hit or status == 0):
                survived[pending] += 1
            pending = way if hit else None
            if hit:
                struck[way] += 1
                halves += any(work_dir.glob('*.part'))
                kill = next(kills, None)
            elif status:
                output = (work_dir / 'output.txt').read_text()[-3000:]
                sys.exit(f'a run did not continue after a kill:\n{output}')
            else:
                finished += 1
                identical += same(work_dir, references[by_epoch])
                by_epoch = not by_epoch
                work_dir = folder / f'run-{finished}'

    table = Table(
        title=f'{EPOCHS * STEPS_PER_EPOCH} steps, a checkpoint after every second one; '
        f'torch {torch.__version__}, CPU'
    )
    for name in ('SIGKILL, or as named', 'kills', 'survived'):
        table.add_column(name, justify='left' if 'SIGKILL' in name else 'right')
    for way in ways:
        table.add_row(way, str(struck[way]), str(survived[way]))
    Console(width=100).print(table)
    print(
        f'{sum(survived.values())} of {sum(struck.values())} kills survived, {halves} of which '
        f'left an incomplete checkpoint; {identical} of {finished} runs bit-identical'
    )
    if args.json:
        figures = dict(
            kills=dict(struck),
            survived=dict(survived),
            half_written=halves,
            runs=finished,
            identical=identical,
        )
        args.json.write_text(json.dumps(figures, indent=2) + '\n')
    return int(survived != struck or identical != finished)


if __name__ == '__main__':
    sys.exit(main())
