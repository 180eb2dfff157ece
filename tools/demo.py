"""Pre-trains a small MAE on real images within a few minutes and shows the results.

Writes ``reconstruction.png``, ``loss.png`` and ``results.json`` into a new folder below --out and
prints a table: PSNR on the masked patches of held-out images, for the untrained and the trained
model and for two fills that learn nothing. Without --data, the images are the 2,624 photographs of
solar cells in the package elpv-dataset.
"""

import argparse
import importlib.util
import json
import subprocess
import sys
import tempfile
import time
from datetime import datetime
from pathlib import Path

# Before imports that take seconds.
import early_signals  # noqa: F401

# isort: split
import mae_plugin  # noqa: F401  (registers the models)
import numpy as np
import torch
from demo_evaluation import evaluate
from mae_plugin.apis import draw_curves, find_images, read_log, save_figure
from mae_plugin.cli.arguments import Parser, device, positive
from mae_plugin.cli.errors import SetupErrors
from mae_plugin.utils.printable import printable
from mmengine.config import Config
from PIL import Image, ImageOps
from rich.console import Console
from rich.progress import (
    BarColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
    track,
)
from rich.table import Table
from rich.text import Text

ROOT = Path(__file__).resolve().parents[1]
CONFIG = ROOT / 'configs/mae/mae_vit-mini-p8_demo-64px.py'
# Smallest number of images that can be split into training and held-out images.
FEWEST = 32
# Seconds between two lines of progress if there is no terminal.
INTERVAL = 15
console = Console()


def parse_args() -> argparse.Namespace:
    """Parses the command line."""
    parser = Parser(description=__doc__.split('\n\n')[0])
    parser.add_argument('--data', type=Path, help='a folder of images, with its subfolders')
    parser.add_argument('--minutes', type=float, default=5, help='time for training')
    parser.add_argument(
        '--out', type=Path, default=Path('work_dirs/demo'), help='folder for the results'
    )
    parser.add_argument(
        '--max-images',
        type=positive,
        default=20000,
        help='largest number of images, chosen at random',
    )
    parser.add_argument(
        '--device',
        type=device,
        default='cuda' if torch.cuda.is_available() else 'cpu',
        help='device of the evaluation',
    )
    args = parser.parse_args()
    if args.minutes <= 0:
        parser.error(f'--minutes {args.minutes:g} leaves no time to train')
    return args


def choose_images(folder: Path | None, limit: int) -> list[Path]:
    """Returns the images to use in a fixed random order, at most ``limit``."""
    if folder is None:
        package = importlib.util.find_spec('elpv_dataset')
        if package is None:
            raise FileNotFoundError(
                "the demo's images are not installed: pip install elpv-dataset, or give --data "
                'FOLDER'
            )
        folder = Path(package.origin).parent / 'data' / 'images'
    if not folder.is_dir():
        raise FileNotFoundError(f'there is no folder {folder}')
    files = find_images(folder)
    if len(files) < FEWEST:
        raise ValueError(
            f'{folder} holds {len(files)} images; the demo needs at least {FEWEST} to train on '
            'and to hold out'
        )
    order = np.random.default_rng(0).permutation(len(files))[:limit]
    return [files[i] for i in order]


def shrink(files: list[Path], folder: Path, size: int) -> tuple[int, int]:
    """Writes small copies into ``folder/train`` and ``folder/val``; returns the numbers of both.

    Decoding full-size photographs in every epoch would take more time than training on them.
    """
    counts = dict(train=0, val=0)
    held_out = min(256, len(files) // 4)
    for name in counts:
        (folder / name).mkdir()
    for i, file in enumerate(track(files, 'Preparing images', console=console)):
        try:
            with Image.open(file) as image:
                image = ImageOps.exif_transpose(image).convert('RGB')
        except OSError as error:
            console.print(Text(printable(f'left out {file}: {error}'), 'yellow'), soft_wrap=True)
            continue
        # A margin of 1/8 leaves room for random crops.
        scale = 1.125 * size / min(image.size)
        target = [max(size, round(side * scale)) for side in image.size]
        image = image.resize(target, Image.Resampling.BICUBIC)
        part = 'val' if i < held_out else 'train'
        image.save(folder / part / f'{i:06d}.png', compress_level=1)
        counts[part] += 1
    return counts['train'], counts['val']


def train(data: Path, work_dir: Path, minutes: float) -> Path:
    """Runs ``tools/train.py`` on the demo's config; returns the last checkpoint."""
    log = work_dir / 'train.log'
    command = [sys.executable, ROOT / 'tools/train.py', CONFIG]
    command += ['--work-dir', work_dir, '--data-root', data]
    command += ['--cfg-options', f'custom_hooks.0.minutes={minutes}']
    with log.open('w') as out:
        process = subprocess.Popen(list(map(str, command)), stdout=out, stderr=subprocess.STDOUT)
        try:
            show_progress(process, work_dir, 60 * minutes)
        finally:
            process.terminate()
            process.wait()
    if process.returncode:
        last = ''.join(log.read_text().splitlines()[-1:])
        raise RuntimeError(f'training ended with exit code {process.returncode}, see {log}: {last}')
    if not read_records(work_dir):
        raise RuntimeError(
            f'{minutes:g} minutes were too few for five steps of training; give --minutes a '
            'larger number'
        )
    return Path((work_dir / 'last_checkpoint').read_text().strip())


def show_progress(process: subprocess.Popen, work_dir: Path, seconds: float) -> None:
    """Shows a progress bar until the training process ends."""
    columns = (
        TextColumn('{task.description}'),
        BarColumn(),
        TimeElapsedColumn(),
        TextColumn('left'),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console) as progress:
        task = progress.add_task('Starting to train', total=None)
        start = last_line = None
        while process.poll() is None:
            time.sleep(0.5)
            records = read_records(work_dir)
            if not records:
                continue
            now = time.monotonic()
            if start is None:
                start = now - records[0]['step'] * records[0]['time']
            text = f'Training: step {records[-1]["step"]}, loss {records[-1]["loss"]:.3f}'
            completed = min(now - start, seconds)
            progress.update(task, description=text, total=seconds, completed=completed)
            # Only a terminal can redraw the bar; a file or a pipe gets lines instead.
            is_due = last_line is None or now - last_line > INTERVAL
            if not console.is_terminal and is_due:
                last_line = now
                console.print(f'{text}, {max(0, start + seconds - now):.0f} s left')


def read_records(work_dir: Path) -> list[dict]:
    """Returns the training records so far, each with ``step``, ``time`` and ``loss``."""
    try:
        return read_log(work_dir)
    except FileNotFoundError:
        return []


def main() -> None:
    """Runs the demo."""
    args = parse_args()
    with SetupErrors(), tempfile.TemporaryDirectory() as data:
        config = Config.fromfile(CONFIG)
        files = choose_images(args.data, args.max_images)
        work_dir = args.out.resolve() / datetime.now().strftime('%Y%m%d_%H%M%S')
        work_dir.mkdir(parents=True)
        train_images, held_out = shrink(files, Path(data), config.model.backbone.img_size)
        console.print(
            f'{train_images} images to train on, {held_out} held out; {args.minutes:g} minutes of '
            'training'
        )
        checkpoint = train(Path(data), work_dir, args.minutes)
        scores = evaluate(config, Path(data), checkpoint, work_dir, args.device)
        records = read_records(work_dir)
        save_figure(draw_curves({'run': records}, ['loss']), work_dir / 'loss.png')

    steps = records[-1]['step']
    results = dict(
        psnr_db=scores, steps=steps, minutes=args.minutes, train=train_images, held_out=held_out
    )
    (work_dir / 'results.json').write_text(json.dumps(results, indent=2) + '\n')
    table = Table('held-out images, masked patches', 'PSNR, dB', title=f'After {steps} steps')
    for name, score in scores.items():
        table.add_row(name, f'{score:.2f}')
    console.print(table)
    panels = sorted(
        work_dir.glob('*/vis_data/vis_image/*.png'), key=lambda path: path.stat().st_mtime
    )
    written = [work_dir / name for name in ('reconstruction.png', 'loss.png', 'results.json')]
    for path in [*panels[-1:], *written]:
        console.print(Text(printable(path)), soft_wrap=True)


if __name__ == '__main__':
    main()
