"""Draws a folder of small landscapes to try things on, of any number and free of copyright.

python tools/make_landscapes.py FOLDER --number 3000
"""

import argparse
from pathlib import Path

import numpy as np
from PIL import Image
from rich.progress import track


def landscape(random: np.random.Generator, size: int) -> np.ndarray:
    """Draws a sky with a sun, hills and sometimes a lake, (size, size, 3) uint8."""
    x, y = np.meshgrid(np.linspace(0, 1, size), np.linspace(0, 1, size))
    hue = random.uniform(0.4, 1, 3)
    sky = (1 - y)[..., None] * hue * random.uniform(0.5, 1)
    picture = sky + y[..., None] * (1.1 - 0.3 * hue[::-1])
    center, radius = random.uniform([0.1, 0.05], [0.9, 0.4]), random.uniform(0.05, 0.12)
    distance = np.hypot(x - center[0], y - center[1])[..., None]
    warm = np.array([1.0, random.uniform(0.75, 1), random.uniform(0.3, 0.8)])
    picture += 0.5 * warm * np.exp(-distance / (3 * radius))
    picture = np.where(distance < radius, warm, picture)
    far, near = random.uniform(0.35, 0.9, 3), random.uniform(0.0, 0.45, 3)
    layers = random.integers(3, 6)
    for i in range(layers):
        ridge = random.uniform(0.4, 0.5) + 0.5 * i / layers
        for frequency in (1, 2, 3, 5, 8):
            phase, height = random.uniform(0, 2 * np.pi), random.normal(0, 0.07) / frequency
            ridge = ridge + height * np.sin(2 * np.pi * frequency * x + phase)
        shade = far + (near - far) * (i + 1) / layers
        color = shade * (1.15 - 0.3 * (y - ridge))[..., None]
        picture = np.where((y > ridge)[..., None], color, picture)
    if random.random() < 0.5:
        shore = int(size * random.uniform(0.7, 0.85))
        mirrored = picture[2 * shore - size : shore][::-1]
        phase = random.uniform(0, 6)
        waves = 1 + 0.06 * np.sin(np.arange(size - shore) ** 1.3 + phase)[:, None, None]
        picture[shore:] = mirrored * waves * np.array([0.75, 0.85, 0.95])
    return (255 * picture.clip(0, 1)).round().astype(np.uint8)


def main() -> None:
    """Writes the landscapes."""
    parser = argparse.ArgumentParser(description=__doc__.split('\n\n')[0])
    parser.add_argument('folder', type=Path, help='folder of the images, new or empty')
    parser.add_argument('--number', type=int, default=3000)
    parser.add_argument('--size', type=int, default=96, help='height and width in pixels')
    parser.add_argument('--seed', type=int, default=0)
    args = parser.parse_args()
    if args.folder.exists() and (not args.folder.is_dir() or any(args.folder.iterdir())):
        parser.error(f'{args.folder} exists and is not an empty folder; name a new one')
    args.folder.mkdir(parents=True, exist_ok=True)
    random = np.random.default_rng(args.seed)
    for i in track(range(args.number), 'Drawing'):
        Image.fromarray(landscape(random, args.size)).save(args.folder / f'{i:06d}.png')


if __name__ == '__main__':
    main()
