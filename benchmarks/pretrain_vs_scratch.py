"""Compares pre-training with training from scratch on a dataset of class folders.

python -m benchmarks.pretrain_vs_scratch FOLDER --out work_dirs/pretrain_vs_scratch

FOLDER/train and FOLDER/val hold class folders, or tar files of them. Every run is tools/train.py
with a recipe of configs/mae/small_data. The same command continues after an interruption. OUT/logs
holds one small file per run. The tables are made from these files only: --tables LOGS prints them
again.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import asdict, dataclass, field
from itertools import pairwise
from pathlib import Path

import torch
from mae_plugin.apis import read_log
from mae_plugin.cli.arguments import Parser
from mae_plugin.cli.errors import SetupErrors
from mae_plugin.data import IndexedImages
from mmengine.config import Config
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from .pretrain_vs_scratch_tables import draw_curves_of, draw_epochs, print_tables
from .report import circumstances

ROOT = Path(__file__).parents[1]
RECIPES = 'configs/mae/small_data'
LABELS = 'train_dataloader.dataset.ann_file'
EPOCHS, BATCH = 'train_cfg.max_epochs', 'train_dataloader.batch_size'
RATE, WARMUP = 'optim_wrapper.optimizer.lr', 'param_scheduler.warmup'


@dataclass(frozen=True)
class Size:
    """Recipes of one size, and the length of the short runs."""

    pretrain: str
    finetune: str
    scratch: str
    short: int
    """Epochs of the pre-training runs that differ in one setting."""


SIZES = dict(
    mini=Size(
        'mae_vit-mini-p8_1xb128-coslr-20e_64px',
        'vit-mini-p8_1xb128-coslr-8e_64px',
        'vit-mini-p8_1xb128-scratch-18e_64px',
        short=6,
    ),
    small=Size(
        'mae_vit-small-p8_1xb512-coslr-800e_112px',
        'vit-small-p8_1xb256-coslr-100e_112px',
        'vit-small-p8_1xb256-scratch-300e_112px',
        short=100,
    ),
)

# mmpretrain's own classes for the same recipe. They take sizes in three places and initialize
# weights by init_cfg.
_MMPRETRAIN_MODULES = dict(
    backbone='mmpretrain.models.selfsup.mae.MAEViT',
    neck='mmpretrain.models.necks.mae_neck.MAEPretrainDecoder',
    head='mmpretrain.models.heads.mae_head.MAEPretrainHead',
)


@dataclass(frozen=True, eq=False)
class Run:
    """One training run."""

    name: str
    config: str
    seed: int = 0
    start: str | None = None
    """Name of the run whose last weights initialize this run."""
    options: dict = field(default_factory=dict)


def plan(size: Size, seeds: int, labels: dict[str, Path]) -> list[Run]:
    """Lists all runs, the most informative first, each after the run that it starts from."""
    pairs = [
        [
            Run(f'pretrain-{seed}', size.pretrain, seed),
            Run(f'finetune-{seed}', size.finetune, seed, f'pretrain-{seed}'),
            Run(f'scratch-{seed}', size.scratch, seed),
        ]
        for seed in range(seeds)
    ]
    runs = [
        *pairs[0],
        Run('pretrain-mmpretrain', size.pretrain, options=_mmpretrain_options(size)),
        Run('finetune-mmpretrain', size.finetune, start='pretrain-mmpretrain'),
    ]
    untrained = {RATE: 0.0, EPOCHS: 1, WARMUP: 0, 'train_cfg.val_interval': 1}
    # One step with learning rate 0, so that the probe evaluates the initial weights.
    untrained |= {'train_dataloader.dataset.indices': 1, 'train_dataloader.drop_last': False}
    runs.append(Run('untrained', size.pretrain, options=untrained))
    fewer = {'10': {EPOCHS: 4 * _config(size.finetune).train_cfg.max_epochs, BATCH: 64}}
    fewer['1'] = {EPOCHS: 10 * _config(size.finetune).train_cfg.max_epochs, BATCH: 32}
    for percent, options in fewer.items():
        options = {
            **options,
            LABELS: str(labels[percent]),
            'train_cfg.val_interval': options[EPOCHS],
        }
        runs.append(
            Run(f'finetune-labels-{percent}', size.finetune, start='pretrain-0', options=options)
        )
        runs.append(
            Run(
                f'scratch-labels-{percent}',
                size.scratch,
                options={**options, EPOCHS: 2 * options[EPOCHS]},
            )
        )
    settings = {
        f'mask-{percent}': {'model.backbone.mask_ratio': percent / 100}
        for percent in (25, 50, 75, 90)
    }
    settings['raw'] = {'model.head.norm_pix': False}
    short = {EPOCHS: size.short, 'train_cfg.val_interval': size.short}
    tuning = next(run.options for run in runs if run.name == 'finetune-labels-10')
    for name, options in settings.items():
        runs.append(Run(f'pretrain-{name}', size.pretrain, options={**short, **options}))
        runs.append(
            Run(f'finetune-{name}', size.finetune, start=f'pretrain-{name}', options=tuning)
        )
    runs += [run for pair in pairs[1:] for run in pair]
    recipe = _config(size.scratch)
    rate, half = recipe.optim_wrapper.optimizer.lr, {EPOCHS: recipe.train_cfg.max_epochs // 2}
    schedules = {
        'rate-0.5': {RATE: rate * 0.5},
        'half': half,
        'half-rate-0.5': {**half, RATE: rate * 0.5},
        'half-rate-2': {**half, RATE: rate * 2},
    }
    runs += [
        Run(f'scratch-{name}', size.scratch, options=options) for name, options in schedules.items()
    ]
    return runs


def _config(name: str) -> Config:
    """Loads a recipe by name."""
    return Config.fromfile(ROOT / RECIPES / f'{name}.py')


def _mmpretrain_options(size: Size) -> dict:
    """Returns the options that replace the classes of this plugin by those of mmpretrain."""
    backbone = _config(size.pretrain).model.backbone
    sizes = dict(patch_size=backbone.patch_size)
    neck = dict(**sizes, num_patches=(backbone.img_size // backbone.patch_size) ** 2, in_chans=3)
    parts = dict(backbone={}, neck=dict(**neck, embed_dim=backbone.arch.embed_dims), head=sizes)
    options = {
        f'model.{part}.{key}': value
        for part, values in parts.items()
        for key, value in values.items()
    }
    options |= {f'model.{part}.type': path for part, path in _MMPRETRAIN_MODULES.items()}
    draw = [
        dict(type='Xavier', distribution='uniform', layer='Linear'),
        dict(type='Constant', val=1, layer='LayerNorm'),
    ]
    return {**options, 'model.type': 'mmpretrain.models.selfsup.mae.MAE', 'model.init_cfg': draw}


def choose_labels(root: Path, out: Path) -> dict[str, Path]:
    """Writes lists of 10 % and 1 % of the training images, the same share of every class."""
    images = IndexedImages(data_root=str(root), data_prefix='train', with_label=True, pipeline=[])
    by_class: dict[str, list[str]] = {}
    for i in torch.randperm(len(images), generator=torch.Generator().manual_seed(0)).tolist():
        info = images.get_data_info(i)
        name = images.data_list.name(i)
        by_class.setdefault(images.CLASSES[info['gt_label']], []).append(name)
    lists = {}
    for percent in (10, 1):
        path = lists[str(percent)] = (out / f'labels-{percent}.txt').absolute()
        chosen = [
            f'{name} {label}\n'
            for label, names in sorted(by_class.items())
            for name in names[: max(1, round(len(names) * percent / 100))]
        ]
        path.write_text(''.join(chosen))
    return lists


class Jobs:
    """Runs trainings, several at a time, and records their results.

    Args:
        root: the dataset.
        out: folder of the work dirs and of ``logs``.
        at_a_time: number of processes, which share the cores equally.
    """

    def __init__(self, root: Path, out: Path, at_a_time: int) -> None:
        self.root, self.out, self.at_a_time = root, out, at_a_time
        self.logs = out / 'logs'
        self.logs.mkdir(parents=True, exist_ok=True)
        self.running: dict[Run, subprocess.Popen] = {}

    def do(self, runs: list[Run]) -> None:
        """Executes all runs that have no log yet.

        Raises:
            RuntimeError: if a run fails, or on SIGINT or SIGTERM.
        """
        missing = [run for run in runs if not self._log(run.name).is_file()]
        length = {run: _config(run.config).train_cfg.max_epochs for run in missing}
        length |= {run: run.options.get(EPOCHS, epochs) for run, epochs in length.items()}
        columns = (
            TextColumn('{task.description}'),
            BarColumn(),
            TimeElapsedColumn(),
            TextColumn('left'),
        )
        with Progress(*columns, TimeRemainingColumn(), console=Console(stderr=True)) as progress:
            bar = progress.add_task('runs', total=sum(length.values()))
            finished = 0
            try:
                while missing or self.running:
                    for run in list(missing):
                        ready = run.start is None or self._log(run.start).is_file()
                        if ready and len(self.running) < self.at_a_time:
                            missing.remove(run)
                            self.running[run] = self._begin(run)
                    time.sleep(2)
                    for run in [
                        run for run, process in self.running.items() if process.poll() is not None
                    ]:
                        self._end(run)
                        finished += length[run]
                    now = finished + sum(self._epochs_done(run) for run in self.running)
                    names = ', '.join(run.name for run in self.running)
                    progress.update(bar, completed=now, description=names)
            except KeyboardInterrupt:
                raise RuntimeError('stopped; run the same command to continue') from None
            finally:
                for process in self.running.values():
                    process.send_signal(signal.SIGTERM)
                for process in self.running.values():
                    process.wait()

    def _log(self, name: str) -> Path:
        return self.logs / f'{name}.json'

    def _begin(self, run: Run) -> subprocess.Popen:
        work_dir = self.out / run.name
        work_dir.mkdir(exist_ok=True)
        config = _config(run.config)
        config.merge_from_dict(
            {'randomness.seed': run.seed, 'default_hooks.logger.interval': 10, **run.options}
        )
        config.dump(work_dir / 'config.py')
        command = [
            sys.executable,
            'tools/train.py',
            str(work_dir / 'config.py'),
            '--data-root',
            str(self.root),
        ]
        command += ['--work-dir', str(work_dir), '--resume']
        if run.start:
            command += ['--pretrained', (self.out / run.start / 'last_checkpoint').read_text()]
        threads = max(1, os.cpu_count() // self.at_a_time)
        with open(work_dir / 'output.txt', 'a') as output:
            environment = {**os.environ, 'OMP_NUM_THREADS': str(threads)}
            return subprocess.Popen(
                command,
                cwd=ROOT,
                stdout=output,
                stderr=subprocess.STDOUT,
                env=environment,
                start_new_session=True,
            )

    def _epochs_done(self, run: Run) -> int:
        try:
            return max(record.get('epoch', 1) - 1 for record in read_log(self.out / run.name))
        except (FileNotFoundError, ValueError):
            return 0

    def _end(self, run: Run) -> None:
        process = self.running.pop(run)
        output = self.out / run.name / 'output.txt'
        if process.returncode:
            last_lines = ' '.join(output.read_text().split('\n')[-3:])[-600:]
            raise RuntimeError(
                f'{run.name} ended with exit code {process.returncode}; the last lines of {output} '
                f'are: {last_lines}'
            )
        batch = Config.fromfile(self.out / run.name / 'config.py').train_dataloader.batch_size
        self._log(run.name).write_text(_compact(run, batch, read_log(self.out / run.name)))


def _compact(run: Run, batch: int, records: list[dict]) -> str:
    """Returns the log of a run as JSON: its settings, and one line per epoch."""
    trained = [record for record in records if 'loss' in record]
    since = [trained[0]['step']] + [b['step'] - a['step'] for a, b in pairwise(trained)]
    seconds = sum(number * record['time'] for number, record in zip(since, trained, strict=True))
    epochs: dict[int, dict] = {}
    epoch = 1
    for record in records:
        # The record of a validation follows that of its epoch and does not name the epoch.
        epoch = record.get('epoch', epoch)
        kept = {
            key: float(f'{of:.6g}')
            for key, of in record.items()
            if key in ('loss', 'lr') or '/' in key
        }
        epochs.setdefault(epoch, {}).update(kept)
    device = torch.device('cuda' if torch.cuda.is_available() else 'cpu')
    steps = trained[-1]['step']
    notes = dict(**circumstances(device), steps=steps, images=steps * batch, seconds=round(seconds))
    settings = {
        **asdict(run),
        'options': {k: str(v).rsplit('/', 1)[-1] for k, v in run.options.items()},
    }
    lines = ',\n'.join(f'  {json.dumps(dict(epoch=epoch, **of))}' for epoch, of in epochs.items())
    head = f'{{"run": {json.dumps(settings)},\n "notes": {json.dumps(notes)},'
    return f'{head}\n "epochs": [\n{lines}\n]}}\n'


def main() -> None:
    parser = Parser(description=__doc__.split('\n\n')[0])
    parser.add_argument('data', type=Path, nargs='?', help='dataset folder with train and val')
    parser.add_argument(
        '--out', type=Path, default=Path('work_dirs/pretrain_vs_scratch'), help='folder of all runs'
    )
    parser.add_argument(
        '--size', choices=SIZES, default='small' if torch.cuda.is_available() else 'mini'
    )
    parser.add_argument(
        '--seeds', type=int, default=3, help='number of seeds of the main comparison'
    )
    parser.add_argument(
        '--jobs', type=int, default=1 if torch.cuda.is_available() else os.cpu_count(), metavar='N'
    )
    parser.add_argument(
        '--only', nargs='+', metavar='RUN', help='execute only these runs, such as pretrain-0'
    )
    parser.add_argument(
        '--tables', type=Path, metavar='LOGS', help='print the tables of these logs and run nothing'
    )
    parser.add_argument(
        '--pictures', type=Path, metavar='FOLDER', help='folder for curves drawn from the logs'
    )
    parser.add_argument(
        '--images',
        nargs='+',
        default=[],
        metavar='IMAGE',
        help='images to reconstruct for --pictures',
    )
    parser.add_argument('--force', action='store_true', help='overwrite existing pictures')
    args = parser.parse_args()
    # Signals are forwarded to the runs, which save their state.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    with SetupErrors():
        if args.tables is None:
            if args.data is None or not (args.data / 'train').is_dir():
                raise FileNotFoundError(
                    f'{args.data} is no dataset; give a folder that contains train and val'
                )
            out = args.out.absolute() / args.size
            out.mkdir(parents=True, exist_ok=True)
            runs = plan(SIZES[args.size], args.seeds, choose_labels(args.data, out))
            if args.only:
                runs = [run for run in runs if run.name in args.only]
            Jobs(args.data.absolute(), out, args.jobs).do(runs)
            args.tables = out / 'logs'
        print_tables(args.tables)
        if args.pictures:
            draw_curves_of(args.tables, args.pictures, args.force)
            if args.images:
                run = args.out / args.size / 'pretrain-0'
                draw_epochs(run, args.images, args.pictures / 'epochs.png', args.force)


if __name__ == '__main__':
    main()
