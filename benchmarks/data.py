"""Compares the speed from JPEG file to crop: mmpretrain, this plugin, torchvision and DALI.

python -m benchmarks.data PHOTOGRAPHS [--large LARGE_PHOTOGRAPHS]

PHOTOGRAPHS is a folder of JPEG files. A temporary folder holds tar files made from it at 256 px,
mosaics of 12 megapixels made from it, and the photographs of --large resized to 12 megapixels. The
tables cover one core, and data loaders with 1 worker and more. DALI is included if it is installed.
"""

from __future__ import annotations

import argparse
import functools
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import torch
from mae_plugin.data.decoding.decode import EncodedImage
from mae_plugin.data.prepare import Plan, prepare
from mae_plugin.data.sources.folder import scan_folder
from mae_plugin.utils._compat.torch import kill_loader_workers
from mmengine.dataset import default_collate
from mmpretrain.registry import DATASETS
from PIL import Image, ImageOps
from rich.console import Console
from rich.progress import track
from rich.table import Table
from torch.utils.data import DataLoader, RandomSampler
from torchvision.io import ImageReadMode, decode_image
from torchvision.transforms import v2

from .report import circumstances, write_json

LOG = Console(stderr=True)
SIZE, RATIOS, LARGE = 224, (0.2, 1.0), (4000, 3000)
STOCK = [
    dict(type='LoadImageFromFile'),
    dict(
        type='RandomResizedCrop',
        scale=SIZE,
        crop_ratio_range=RATIOS,
        backend='pillow',
        interpolation='bicubic',
    ),
    dict(type='RandomFlip', prob=0.5),
]

Pass = Callable[[], int]
"""Function that reads all images once and returns their number."""

# torch identifies iterators by their address in memory, so ended ones are kept alive.
_ENDED: list = []


def mosaics(photographs: list[str], number: int = 8) -> Iterator[Image.Image]:
    """Yields images of 12 megapixels composed of photographs, with more detail than a camera's."""
    generator = np.random.default_rng(0)
    for _ in range(number):
        whole = Image.new('RGB', LARGE)
        for left in range(0, LARGE[0], 400):
            for top in range(0, LARGE[1], 300):
                with Image.open(photographs[generator.integers(len(photographs))]) as photograph:
                    whole.paste(photograph.convert('RGB').resize((400, 300)), (left, top))
        yield whole


def fitted(photographs: list[str]) -> Iterator[Image.Image]:
    """Yields photographs of about 12 megapixels, resized to exactly 12."""
    for path in photographs:
        with Image.open(path) as photograph:
            yield ImageOps.fit(photograph.convert('RGB'), LARGE)


def save(images: Iterator[Image.Image], folder: Path) -> list[str]:
    """Saves images as JPEG files in one scan, as a camera does."""
    folder.mkdir()
    paths = []
    for image in track(images, description=folder.name, console=LOG):
        paths.append(str(folder / f'{len(paths)}.jpg'))
        image.save(paths[-1], quality=90)
    return paths


def photographs_of(folder: str) -> list[str]:
    """Returns the paths of all images in a folder."""
    return [os.path.join(folder, name) for name in scan_folder(folder)[0]]


def dataset(kind: str, root: str, pack: bool = False, **crop) -> torch.utils.data.Dataset:
    """Builds the dataset and pipeline of mmpretrain (``kind='stock'``) or of this plugin."""
    if kind == 'stock':
        config = dict(type='CustomDataset', pipeline=list(STOCK), with_label=False)
    else:
        load = dict(type='LoadRandomCrop', scale=SIZE, crop_ratio_range=RATIOS, **crop)
        config = dict(type='IndexedImages', pipeline=[load])
    config['pipeline'] += [dict(type='PackInputs')] * pack
    return DATASETS.build(dict(config, data_root=root))


def through(images: torch.utils.data.Dataset) -> Pass:
    """Returns a pass through a dataset."""

    def go() -> int:
        for i in range(len(images)):
            images[i]
        return len(images)

    return go


def torchvision(paths: list[str]) -> Pass:
    """Returns a pass with torchvision's own decoder and transforms, on uint8 tensors."""
    transform = v2.Compose(
        [
            v2.RandomResizedCrop(
                SIZE, RATIOS, interpolation=v2.InterpolationMode.BICUBIC, antialias=True
            ),
            v2.RandomHorizontalFlip(),
        ]
    )

    def go() -> int:
        for path in paths:
            data = torch.frombuffer(bytearray(Path(path).read_bytes()), dtype=torch.uint8)
            transform(decode_image(data, ImageReadMode.RGB))
        return len(paths)

    return go


def dali(paths: list[str]) -> Pass:
    """Returns a pass with DALI on one thread, whose decoder decodes little more than the crop.

    Raises:
        ImportError: if DALI is not installed.
    """
    from nvidia.dali import fn, pipeline_def, types

    batch = min(50, len(paths))

    @pipeline_def(
        batch_size=batch, num_threads=1, device_id=None, exec_async=False, exec_pipelined=False
    )
    def pipeline() -> object:
        data, _ = fn.readers.file(files=paths)
        pixels = fn.decoders.image_random_crop(
            data, random_area=list(RATIOS), random_aspect_ratio=[3 / 4, 4 / 3]
        )
        pixels = fn.resize(
            pixels, size=[SIZE, SIZE], interp_type=types.INTERP_CUBIC, antialias=True
        )
        return fn.flip(pixels, horizontal=fn.random.coin_flip())

    running = pipeline(prefetch_queue_depth=1)
    running.build()

    def go() -> int:
        for _ in range(len(paths) // batch):
            running.run()
        return len(paths) // batch * batch

    return go


def endless_batches(images: torch.utils.data.Dataset, workers: int, batch: int) -> Iterator[list]:
    """Returns an iterator over batches of a data loader without pauses between epochs."""
    sampler = RandomSampler(images, replacement=True, num_samples=10**9)
    return iter(
        DataLoader(images, batch, sampler=sampler, num_workers=workers, collate_fn=default_collate)
    )


def time_passes(passes: dict[str, Pass], rounds: int, what: str) -> dict[str, list[float]]:
    """Measures images per second on one core, for every implementation and round."""
    rates: dict[str, list[float]] = {name: [] for name in passes}
    for go in passes.values():
        go()
    # Processor time, because wall time depends on other work of the machine.
    for _ in track(range(rounds), description=what, console=LOG):
        for name, go in passes.items():
            begin = time.process_time()
            number = go()
            rates[name].append(number / (time.process_time() - begin))
    return rates


def time_loaders(
    roots: dict[str, tuple[str, str]], workers: int, rounds: int, batch: int = 50
) -> dict:
    """Measures images per second of data loaders, one loader at a time."""
    rates: dict[str, list[float]] = {name: [] for name in roots}
    for _ in track(range(rounds), description=f'{workers} workers', console=LOG):
        for name, (kind, root) in roots.items():
            batches = endless_batches(dataset(kind, root, pack=True), workers, batch)
            # Warm up until all workers have started and the queues are full.
            for _ in range(2 * workers + 2):
                next(batches)
            begin = time.perf_counter()
            for _ in range(20):
                next(batches)
            rates[name].append(20 * batch / (time.perf_counter() - begin))
            kill_loader_workers(batches)
            _ENDED.append(batches)
    return rates


def show(title: str, rates: dict[str, list[float]], stock: str) -> None:
    """Prints a table with ratios to the implementation ``stock``, paired within rounds."""
    table = Table(title=title)
    for head in ('', 'images/s', 'spread', f'over {stock}'):
        table.add_column(head, justify='right' if head else 'left')
    for name, own in rates.items():
        ratio = statistics.median(a / b for a, b in zip(own, rates[stock], strict=True))
        middle = statistics.median(own)
        table.add_row(
            name, f'{middle:.0f}', f'{(max(own) - min(own)) / middle:.0%}', f'{ratio:.2f}'
        )
    Console(width=100).print(table)


def differences(paths: list[str], reduce: bool = False) -> dict[str, float]:
    """Compares pixels with images that Pillow decodes and resizes, in levels of 255."""
    from mae_plugin.data.resize import resize

    values = []
    for path in paths:
        image = EncodedImage(Path(path).read_bytes(), 'rgb')
        reduction = 1
        if reduce:
            reduction = max(factor for factor in (1, 2, 4, 8) if factor * SIZE <= min(image.size))
        reference = np.asarray(
            Image.open(path).convert('RGB').resize((SIZE, SIZE), Image.Resampling.BICUBIC)
        )
        ours = resize(image.pixels(reduction), (SIZE, SIZE))
        values.append(np.abs(ours.astype(int) - reference).reshape(-1))
    values = np.concatenate(values)
    return dict(mean=values.mean(), more_than_2=(values > 2).mean(), greatest=int(values.max()))


def main() -> None:
    parser = argparse.ArgumentParser(description='Compare the speed from JPEG file to crop.')
    parser.add_argument('photographs', help='folder of JPEG files')
    parser.add_argument('--large', help='folder of photographs of about 12 megapixels')
    parser.add_argument('--rounds', type=int, default=9, help='rounds per implementation')
    parser.add_argument(
        '--workers', type=int, default=os.cpu_count(), help='largest number of data-loader workers'
    )
    parser.add_argument('--json', type=Path, help='file to write the figures to')
    args = parser.parse_args()
    torch.set_num_threads(1)
    where = circumstances(torch.device('cpu'))
    print(', '.join(f'{name} {value}' for name, value in where.items()))
    paths = photographs_of(args.photographs)
    figures: dict = {}
    with tempfile.TemporaryDirectory() as folder:
        shards = os.path.join(folder, 'shards')
        prepare(Plan(args.photographs, size=256), shards)
        large = {'mosaics of 12 MP': save(mosaics(paths), Path(folder, 'mosaics'))}
        if args.large:
            large['photographs of 12 MP'] = save(
                fitted(photographs_of(args.large)), Path(folder, 'large')
            )

        ours = functools.partial(dataset, 'ours')
        small = {
            'mmpretrain': through(dataset('stock', args.photographs)),
            'mae_plugin': through(ours(args.photographs)),
            'mae_plugin, prepared at 256 px': through(ours(shards)),
            'torchvision v2': torchvision(paths),
        }
        try:
            small['DALI'] = dali(paths)
        except ImportError:
            print('DALI is not installed')
        figures['core'] = time_passes(small, args.rounds, 'photographs')
        show(f'one core, {len(paths)} photographs', figures['core'], 'mmpretrain')
        for name, files in large.items():
            root = os.path.dirname(files[0])
            big = {
                'mmpretrain': through(dataset('stock', root)),
                'mae_plugin': through(ours(root)),
                'mae_plugin, reduce=True': through(ours(root, reduce=True)),
                'torchvision v2': torchvision(files),
            }
            if 'DALI' in small:
                big['DALI'] = dali(files)
            bits = (
                statistics.mean(os.path.getsize(path) for path in files) * 8 / (LARGE[0] * LARGE[1])
            )
            rates = figures[f'core, {name}'] = time_passes(big, args.rounds, name)
            show(f'one core, {len(files)} {name}, {bits:.1f} bits per pixel', rates, 'mmpretrain')

        roots = {
            'mmpretrain': ('stock', args.photographs),
            'mae_plugin': ('ours', args.photographs),
            'mae_plugin, prepared at 256 px': ('ours', shards),
        }
        for workers in range(1, args.workers + 1):
            rates = figures[f'{workers} workers'] = time_loaders(roots, workers, args.rounds)
            show(f'a data loader of {workers} workers', rates, 'mmpretrain')

        table = Table(title="difference of whole images from Pillow's bicubic, in levels of 255")
        for head in ('', 'mean', 'pixels with more than 2', 'maximum'):
            table.add_column(head, justify='right' if head else 'left')
        compared = {'photographs': differences(paths)}
        for name, files in large.items():
            compared |= {
                name: differences(files),
                f'{name}, reduced': differences(files, reduce=True),
            }
        for name, found in compared.items():
            figures[f'difference, {name}'] = found
            table.add_row(
                name, f'{found["mean"]:.3f}', f'{found["more_than_2"]:.4%}', str(found['greatest'])
            )
        Console(width=100).print(table)
    write_json(args.json, circumstances=where, **figures)


if __name__ == '__main__':
    main()
