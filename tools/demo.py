"""Pre-trains a small MAE on real images within a few minutes and shows what it learned.

Writes ``reconstruction.png``, ``loss.png`` and ``results.json`` into a new folder below --out and
prints a table: PSNR on the masked patches of held-out images for the untrained and the trained
model and for two fills that learn nothing. Without --data the images are the 2,624 solar-cell
photographs of the package elpv-dataset.
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

# Before all that takes seconds to import.
import early_signals  # noqa: F401

# isort: split
import mae_plugin  # noqa: F401  (registers the models)
import numpy as np
import torch
from mae_plugin.apis import (
    ReconstructionInferencer,
    draw_curves,
    draw_grid,
    find_images,
    read_log,
    save_figure,
)
from mae_plugin.apis.errors import SetupErrors
from mae_plugin.cli.arguments import Parser, device, positive
from mae_plugin.models.masking import masking_from_noise, num_visible
from mae_plugin.models.patches import fill_from_visible, patchify, unpatchify
from mae_plugin.utils.printable import printable
from mmengine.config import Config
from mmpretrain import get_model
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
from torch import Tensor

ROOT = Path(__file__).resolve().parents[1]
CONFIG = ROOT / 'configs/mae/mae_vit-mini-p8_demo-64px.py'
FEWEST = 32
console = Console()


def parse_args() -> argparse.Namespace:
    parser = Parser(description=__doc__.split('\n\n')[0])
    parser.add_argument(
        '--data', type=Path, help='a folder of images, searched with its subfolders'
    )
    parser.add_argument('--minutes', type=float, default=5, help='time for training')
    parser.add_argument(
        '--out', type=Path, default=Path('work_dirs/demo'), help='folder for the results'
    )
    parser.add_argument(
        '--max-images',
        type=positive,
        default=20000,
        help='use at most so many images, chosen at random',
    )
    parser.add_argument(
        '--device',
        type=device,
        default='cuda' if torch.cuda.is_available() else 'cpu',
        help='for the evaluation',
    )
    args = parser.parse_args()
    if args.minutes <= 0:
        parser.error(f'--minutes {args.minutes:g} leaves no time to train')
    return args


def choose_images(folder: Path | None, limit: int) -> list[Path]:
    """The images to use in a fixed random order, at most ``limit``."""
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
    """Writes small copies into ``folder/train`` and ``folder/val``; returns how many of each.

    Decoding full-size photographs again in every epoch would take more time than training on them.
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
        scale = 1.125 * size / min(image.size)
        image = image.resize(
            [max(size, round(side * scale)) for side in image.size], Image.Resampling.BICUBIC
        )
        part = 'val' if i < held_out else 'train'
        image.save(folder / part / f'{i:06d}.png', compress_level=1)
        counts[part] += 1
    return counts['train'], counts['val']


def train(data: Path, work_dir: Path, minutes: float) -> Path:
    """Runs ``tools/train.py`` on the demo's config with a progress bar; returns the last
    checkpoint.
    """
    log = work_dir / 'train.log'
    command = [
        sys.executable,
        ROOT / 'tools/train.py',
        CONFIG,
        '--work-dir',
        work_dir,
        '--data-root',
        data,
    ]
    command += ['--cfg-options', f'custom_hooks.0.minutes={minutes}']
    columns = (
        TextColumn('{task.description}'),
        BarColumn(),
        TimeElapsedColumn(),
        TextColumn('left'),
        TimeRemainingColumn(),
    )
    with log.open('w') as out, Progress(*columns, console=console) as progress:
        task = progress.add_task('Starting to train', total=None)
        process = subprocess.Popen(
            [str(word) for word in command], stdout=out, stderr=subprocess.STDOUT
        )
        try:
            started = said = None
            while process.poll() is None:
                time.sleep(0.5)
                records = read_records(work_dir)
                if not records:
                    continue
                now = time.monotonic()
                started = started or now - records[0]['step'] * records[0]['time']
                text = f'Training: step {records[-1]["step"]}, loss {records[-1]["loss"]:.3f}'
                progress.update(
                    task,
                    description=text,
                    total=60 * minutes,
                    completed=min(now - started, 60 * minutes),
                )
                # A bar redraws itself on a terminal only; in a file or a pipe every quarter of a
                # minute gets a line.
                if not console.is_terminal and (said is None or now - said > 15):
                    said = now
                    console.print(f'{text}, {max(0, started + 60 * minutes - now):.0f} s left')
        finally:
            process.terminate()
            process.wait()
    if process.returncode:
        last = log.read_text().splitlines()[-1:]
        raise RuntimeError(
            f'training ended with exit code {process.returncode}, see {log}: {"".join(last)}'
        )
    if not read_records(work_dir):
        raise RuntimeError(
            f'{minutes:g} minutes were too few for five steps of training; give --minutes a '
            'larger number'
        )
    return Path((work_dir / 'last_checkpoint').read_text().strip())


def read_records(work_dir: Path) -> list[dict]:
    """The training records that mmengine has logged so far, a dict with ``step``, ``time`` and
    ``loss`` each.
    """
    try:
        return read_log(work_dir)
    except FileNotFoundError:
        return []


def load_images(folder: Path, size: int) -> Tensor:
    """The held-out images, cut to their central square: (N, 3, size, size), RGB from 0 to 255."""
    images = [
        ImageOps.fit(Image.open(path), (size, size), Image.Resampling.BICUBIC)
        for path in sorted(folder.iterdir())
    ]
    return (
        torch.from_numpy(np.stack([np.asarray(image) for image in images]))
        .permute(0, 3, 1, 2)
        .float()
    )


def psnr(prediction: Tensor, images: Tensor, mask: Tensor, patch_size: tuple[int, int]) -> float:
    """Peak signal-to-noise ratio in dB on the masked patches, the mean over images; pixels from 0
    to 255.
    """
    error = patchify(prediction.clamp(0, 255) - images, patch_size).square().mean(dim=-1)
    mean_squared = (error * mask).sum(dim=1) / mask.sum(dim=1)
    return (10 * (255**2 / mean_squared.clamp(min=1e-9)).log10()).mean().item()


def fill_by_mean(images: Tensor, visible: Tensor) -> Tensor:
    """Every pixel is the mean colour of the image's visible pixels, (N, 1, H, W) with 1 =
    visible.
    """
    mean = (images * visible).sum(dim=(2, 3), keepdim=True) / visible.sum(dim=(2, 3), keepdim=True)
    return mean.expand_as(images)


def fill_by_gaussian(
    images: Tensor, mask: Tensor, patch_size: tuple[int, int], grid: tuple[int, int]
) -> Tensor:
    """Every removed patch is the Gaussian-weighted mean of the visible ones.

    Sigma is 1.5 patches, which did best on the demo's images among 0.5 to 1.5, of patches, their
    mean colours and single pixels alike: a fill to beat, not one to look good against.
    """
    return unpatchify(
        fill_from_visible(patchify(images, patch_size), mask, grid, sigma=1.5), patch_size, grid
    )


def visible_pixels(mask: Tensor, patch_size: tuple[int, int], grid: tuple[int, int]) -> Tensor:
    """(N, L) with 1 = removed -> (N, 1, H, W) with 1 = visible."""
    patches = (1 - mask).unsqueeze(-1).expand(-1, -1, patch_size[0] * patch_size[1])
    return unpatchify(patches, patch_size, grid)


@torch.no_grad()
def evaluate(
    config: Config, data: Path, checkpoint: Path, work_dir: Path, device: str
) -> dict[str, float]:
    """Reconstructs the held-out images under fixed masks, draws some of them, and returns PSNR by
    method.
    """
    torch.manual_seed(config.randomness.seed)
    untrained = get_model(config, device=device)
    trained = get_model(config, pretrained=str(checkpoint), device=device)
    patch_size, grid = trained.backbone.patch_size, trained.backbone.patch_resolution
    images = load_images(data / 'val', trained.backbone.img_size[0]).to(device)
    noise = torch.rand(
        len(images), grid[0] * grid[1], generator=torch.Generator().manual_seed(0)
    ).to(device)
    mask = masking_from_noise(noise, num_visible(noise.shape[1], trained.backbone.mask_ratio)).mask

    def reconstruct(model: torch.nn.Module) -> Tensor:
        mean, std = model.data_preprocessor.mean, model.data_preprocessor.std
        return model.reconstruct((images - mean) / std, noise=noise)[0] * std + mean

    shown = ReconstructionInferencer(trained)(find_images(data / 'val')[:10], batch_size=10)
    rows = [shown[i : i + 2] for i in range(0, len(shown), 2)]
    save_figure(draw_grid(rows, ('masked', 'pasted')), work_dir / 'reconstruction.png')

    visible = visible_pixels(mask, patch_size, grid)
    predictions = {
        'untrained model': reconstruct(untrained),
        'mean of the visible patches': fill_by_mean(images, visible),
        'Gaussian-weighted mean of the visible patches': fill_by_gaussian(
            images, mask, patch_size, grid
        ),
        'trained model': reconstruct(trained),
    }
    return {
        name: psnr(prediction, images, mask, patch_size) for name, prediction in predictions.items()
    }


def main() -> None:
    args = parse_args()
    with SetupErrors(), tempfile.TemporaryDirectory() as data:
        config = Config.fromfile(CONFIG)
        files = choose_images(args.data, args.max_images)
        work_dir = args.out.resolve() / datetime.now().strftime('%Y%m%d_%H%M%S')
        work_dir.mkdir(parents=True)
        numbers = shrink(files, Path(data), config.model.backbone.img_size)
        console.print(
            f'{numbers[0]} images to train on, {numbers[1]} held out; {args.minutes:g} minutes of '
            'training'
        )
        checkpoint = train(Path(data), work_dir, args.minutes)
        scores = evaluate(config, Path(data), checkpoint, work_dir, args.device)
        records = read_records(work_dir)
        save_figure(draw_curves({'run': records}, ['loss']), work_dir / 'loss.png')

    results = dict(
        psnr_db=scores,
        steps=records[-1]['step'],
        minutes=args.minutes,
        train=numbers[0],
        held_out=numbers[1],
    )
    (work_dir / 'results.json').write_text(json.dumps(results, indent=2) + '\n')
    table = Table(
        'held-out images, masked patches', 'PSNR, dB', title=f'After {records[-1]["step"]} steps'
    )
    for name, score in scores.items():
        table.add_row(name, f'{score:.2f}')
    console.print(table)
    panels = sorted(
        work_dir.glob('*/vis_data/vis_image/*.png'), key=lambda path: path.stat().st_mtime
    )
    for path in (
        *panels[-1:],
        *(work_dir / name for name in ('reconstruction.png', 'loss.png', 'results.json')),
    ):
        console.print(Text(printable(path)), soft_wrap=True)


if __name__ == '__main__':
    main()
