"""Makes a small labelled dataset to try unusual images on, split into train/ and val/ with a folder
per class.

python tools/make_examples.py gray data/gray          # solar cells of the package elpv-dataset: one channel, 8 bits
python tools/make_examples.py bands data/bands        # drawn tiles of land: 13 bands, 120 x 120, 16-bit TIFF
python tools/make_examples.py sonograms data/sonograms    # drawn sounds: 512 x 128, float32 .npy
"""

import importlib.util
import shutil
from collections.abc import Iterator
from pathlib import Path

# Before all that takes seconds to import.
import early_signals  # noqa: F401

# isort: split
import numpy as np
import tifffile
from mae_plugin.apis.errors import SetupErrors
from mae_plugin.cli.arguments import Parser, natural
from rich.progress import track

# Reflectance in 1/10000 from blue to infrared, as the eye of a satellite might see it.
SPECTRA = {
    'field': [1100, 1050, 1100, 1150, 1500, 2300, 2600, 2700, 2800, 900, 30, 2400, 1700],
    'forest': [1000, 800, 700, 450, 850, 2200, 2800, 2700, 3000, 800, 20, 1500, 700],
    'town': [1600, 1700, 1800, 2000, 2100, 2200, 2300, 2350, 2400, 1000, 60, 2500, 2300],
    'water': [1300, 1000, 800, 450, 400, 350, 330, 300, 280, 150, 10, 120, 80],
}
SOUNDS = ('rising', 'falling', 'chord', 'clicks')


def tile(random: np.random.Generator, kind: str, size: int = 120) -> np.ndarray:
    """Mostly one kind of land with its texture, some of another, noise, and at times a corner
    without data (0).
    """
    rows, columns = np.mgrid[:size, :size]
    other = random.choice([name for name in SPECTRA if name != kind])
    waves = sum(
        np.sin(2 * np.pi * (f * rows + g * columns) / size + random.uniform(0, 7))
        / (1 + abs(f) + abs(g))
        for f, g in random.integers(-3, 4, (8, 2))
    )
    share = np.where(waves > np.quantile(waves, random.uniform(0.65, 0.95)), 1.0, 0.0)[..., None]
    angle, width = random.uniform(0, np.pi), random.uniform(5, 12)
    along, across = (
        rows * np.cos(angle) + columns * np.sin(angle),
        columns * np.cos(angle) - rows * np.sin(angle),
    )
    texture = {
        'field': 0.25 * np.sign(np.sin(2 * np.pi * along / width)),
        'forest': 0.3
        * (np.sin(rows * 1.1) * np.sin(columns * 1.3) + random.normal(0, 0.5, (size, size))),
        'town': 0.5 * ((along % (2 * width) < 3) | (across % (2 * width) < 3)),
        'water': 0.1 * np.sin(2 * np.pi * along / (3 * width)),
    }[kind][..., None]
    land = (1 - share) * np.array(SPECTRA[kind]) * (1 + texture) + share * np.array(SPECTRA[other])
    land = land * random.uniform(0.8, 1.2) + random.normal(0, 30, (size, size, 13))
    land = land.clip(1, 65535).round().astype(np.uint16)
    if random.random() < 0.2:
        land[rows + columns * random.uniform(0.3, 3) < random.uniform(10, 60)] = 0
    return land


def sonogram(random: np.random.Generator, kind: str) -> np.ndarray:
    """512 moments and 128 pitches of a sound in noise, in decibels."""
    time, pitch = np.mgrid[:512, :128]
    start, length = random.uniform(20, 250), random.uniform(100, 240)
    low = random.uniform(10, 50)
    inside = (time > start) & (time < start + length)
    done = (time - start) / length
    if kind in ('rising', 'falling'):
        centres = [low + random.uniform(20, 60) * (done if kind == 'rising' else 1 - done)]
    else:
        centres = [low * (1 + 0.5 * i) for i in range(4)]
    if kind == 'clicks':
        inside &= time % random.integers(12, 30) < 3
    level = (
        sum(np.exp(-(((pitch - centre) / 2.5) ** 2)) / (i + 1) for i, centre in enumerate(centres))
        * inside
    )
    return (10 * np.log10(level + 0.01 * random.exponential(1, level.shape) + 1e-4)).astype(
        np.float32
    )


def solar_cells() -> Iterator[tuple[str, Path]]:
    """Every image of elpv-dataset that experts were sure of, with its class."""
    package = importlib.util.find_spec('elpv_dataset')
    if package is None:
        raise FileNotFoundError('the images are not installed: pip install elpv-dataset')
    root = Path(package.origin).parent / 'data'
    for line in (root / 'labels.csv').read_text().splitlines():
        name, probability, _ = line.split()
        if float(probability) in (0, 1):
            yield ('defect' if float(probability) else 'sound'), root / name


def main() -> None:
    parser = Parser(description=__doc__.split('\n\n')[0])
    parser.add_argument('kind', choices=['gray', 'bands', 'sonograms'])
    parser.add_argument('folder', type=Path, help='where to write them; must not hold anything yet')
    parser.add_argument(
        '--number', type=int, default=800, help='how many to draw; a fifth of them goes into val/'
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
            # Of every four images of the four kinds in turn, each fifth four are held out.
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
