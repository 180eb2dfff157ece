"""Makes a small labeled dataset of unusual images, with a folder per class in train/ and val/.

python tools/make_examples.py gray data/gray            # solar cells, one channel of 8 bits
python tools/make_examples.py bands data/bands          # drawn tiles, 13 bands, 16-bit TIFF
python tools/make_examples.py sonograms data/sonograms  # drawn sounds, 512 x 128, float32 .npy

The solar cells are from the package elpv-dataset.
"""

import importlib.util
import shutil
from collections.abc import Iterator
from pathlib import Path

# Before imports that take seconds.
import early_signals  # noqa: F401

# isort: split
import numpy as np
import tifffile
from mae_plugin.cli.arguments import Parser, natural
from mae_plugin.cli.errors import SetupErrors
from rich.progress import track

# Reflectance in 1/10000 from blue to infrared, as in images of a satellite.
SPECTRA = {
    'field': [1100, 1050, 1100, 1150, 1500, 2300, 2600, 2700, 2800, 900, 30, 2400, 1700],
    'forest': [1000, 800, 700, 450, 850, 2200, 2800, 2700, 3000, 800, 20, 1500, 700],
    'town': [1600, 1700, 1800, 2000, 2100, 2200, 2300, 2350, 2400, 1000, 60, 2500, 2300],
    'water': [1300, 1000, 800, 450, 400, 350, 330, 300, 280, 150, 10, 120, 80],
}
SOUNDS = ('rising', 'falling', 'chord', 'clicks')


def tile(random: np.random.Generator, kind: str, size: int = 120) -> np.ndarray:
    """Draws a tile of mostly one kind of land, (size, size, 13) uint16.

    It has a texture, some land of another kind, noise, and sometimes a corner without data (0).
    """
    rows, columns = np.mgrid[:size, :size]
    other = random.choice([name for name in SPECTRA if name != kind])
    # Smooth random waves, whose highest parts become the other kind.
    waves = 0
    for f, g in random.integers(-3, 4, (8, 2)):
        phase = random.uniform(0, 7)
        wave = np.sin(2 * np.pi * (f * rows + g * columns) / size + phase)
        waves = waves + wave / (1 + abs(f) + abs(g))
    share = np.where(waves > np.quantile(waves, random.uniform(0.65, 0.95)), 1.0, 0.0)[..., None]
    angle, width = random.uniform(0, np.pi), random.uniform(5, 12)
    along = rows * np.cos(angle) + columns * np.sin(angle)
    across = columns * np.cos(angle) - rows * np.sin(angle)
    crowns = np.sin(rows * 1.1) * np.sin(columns * 1.3)
    textures = {
        'field': 0.25 * np.sign(np.sin(2 * np.pi * along / width)),
        'forest': 0.3 * (crowns + random.normal(0, 0.5, (size, size))),
        'town': 0.5 * ((along % (2 * width) < 3) | (across % (2 * width) < 3)),
        'water': 0.1 * np.sin(2 * np.pi * along / (3 * width)),
    }
    texture = textures[kind][..., None]  # (size, size, 1)
    land = (1 - share) * np.array(SPECTRA[kind]) * (1 + texture) + share * np.array(SPECTRA[other])
    land = land * random.uniform(0.8, 1.2) + random.normal(0, 30, (size, size, 13))
    land = land.clip(1, 65535).round().astype(np.uint16)
    if random.random() < 0.2:
        land[rows + columns * random.uniform(0.3, 3) < random.uniform(10, 60)] = 0
    return land


def sonogram(random: np.random.Generator, kind: str) -> np.ndarray:
    """Draws a sound in noise, 512 moments by 128 pitches in decibels, (512, 128) float32."""
    time, pitch = np.mgrid[:512, :128]
    start, length = random.uniform(20, 250), random.uniform(100, 240)
    low = random.uniform(10, 50)
    inside = (time > start) & (time < start + length)
    done = (time - start) / length
    if kind in ('rising', 'falling'):
        centers = [low + random.uniform(20, 60) * (done if kind == 'rising' else 1 - done)]
    else:
        centers = [low * (1 + 0.5 * i) for i in range(4)]
    if kind == 'clicks':
        inside &= time % random.integers(12, 30) < 3
    level = 0
    for i, center in enumerate(centers):
        level = level + np.exp(-(((pitch - center) / 2.5) ** 2)) / (i + 1)
    level = level * inside
    noise = 0.01 * random.exponential(1, level.shape)
    return (10 * np.log10(level + noise + 1e-4)).astype(np.float32)


def solar_cells() -> Iterator[tuple[str, Path]]:
    """Yields class and path of every image of elpv-dataset with a certain label."""
    package = importlib.util.find_spec('elpv_dataset')
    if package is None:
        raise FileNotFoundError('the images are not installed: pip install elpv-dataset')
    root = Path(package.origin).parent / 'data'
    for line in (root / 'labels.csv').read_text().splitlines():
        name, probability, _ = line.split()
        # The probability of a defect, 0 or 1 where the experts were certain.
        if float(probability) in (0, 1):
            yield ('defect' if float(probability) else 'sound'), root / name


def main() -> None:
    """Writes the dataset."""
    parser = Parser(description=__doc__.split('\n\n')[0])
    parser.add_argument('kind', choices=['gray', 'bands', 'sonograms'])
    parser.add_argument('folder', type=Path, help='folder of the dataset, new or empty')
    parser.add_argument(
        '--number', type=int, default=800, help='number of drawn images, a fifth of them in val/'
    )
    parser.add_argument('--seed', type=natural, default=0)
    args = parser.parse_args()
    if args.number < 20:
        parser.error(
            f'--number {args.number} is too few for four classes in two parts; at least 20'
        )
    if args.folder.exists() and (not args.folder.is_dir() or any(args.folder.iterdir())):
        parser.error(f'{args.folder} exists and is not an empty folder; name a new one')
    random = np.random.default_rng(args.seed)
    with SetupErrors():
        if args.kind == 'gray':
            drawn = [*solar_cells()]
            drawn = [drawn[i] for i in random.permutation(len(drawn))]
        else:
            kinds = [*SPECTRA] if args.kind == 'bands' else SOUNDS
            drawn = [(kinds[i % 4], None) for i in range(args.number)]
        for i, (label, path) in enumerate(track(drawn, 'Writing')):
            # Four images in a row, one of each class, have the same part; every fifth four is held
            # out.
            folder = args.folder / ('val' if i // 4 % 5 == 0 else 'train') / label
            folder.mkdir(parents=True, exist_ok=True)
            if path is not None:
                shutil.copyfile(path, folder / path.name)
            elif args.kind == 'bands':
                image = tile(random, label)
                tifffile.imwrite(
                    folder / f'{i:05d}.tif', image, photometric='minisblack', planarconfig='contig'
                )
            else:
                np.save(folder / f'{i:05d}.npy', sonogram(random, label))


if __name__ == '__main__':
    main()
