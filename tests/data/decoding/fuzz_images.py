"""Damages images of every format, and decodes each in a process with limits on memory and time.

python -m tests.data.decoding.fuzz_images --cases 100000 --seed 1
"""

from __future__ import annotations

import argparse
import io
import logging
import multiprocessing
import resource
import signal
import struct
import sys
import time
import warnings
from collections import Counter

import numpy as np
import tifffile
from mae_plugin.data.decoding.decode import EncodedImage
from PIL import Image

from .jpegs import lossless, with_frame

MEMORY, SECONDS = 3 * 2**30, 60
"""Bytes of address space on top of what is imported, and seconds of the processor for one file."""

COLOR_TYPES = ('color', 'grayscale', 'unchanged')


def seeds() -> dict[str, bytes]:
    """Returns intact images of every supported format, of 48 x 32 pixels."""
    y, x = np.mgrid[:32, :48]
    noise = np.random.default_rng(0).integers(0, 40, (32, 48, 3))
    pixels = (np.stack([x * 4, y * 6, x + y], axis=-1) + noise).astype(np.uint8)
    color = Image.fromarray(pixels)
    gray, palette, alpha = color.convert('L'), color.quantize(32), color.convert('RGBA')
    alpha.putalpha(gray)
    deep = pixels[..., 0].astype(np.uint16) * 257
    exif = Image.Exif()
    exif[0x0112] = 6
    files = {
        'jpeg': _saved(color, 'JPEG', exif=exif),
        'jpeg 444': _saved(
            color, 'JPEG', subsampling=0, quality=95, xmp=b'<a tiff:Orientation="3"/>'
        ),
        'jpeg progressive': _saved(color, 'JPEG', progressive=True),
        'jpeg restarts': _saved(color, 'JPEG', restart_marker_blocks=2),
        'jpeg gray': _saved(gray, 'JPEG', optimize=True),
        'jpeg gray progressive': _saved(gray, 'JPEG', progressive=True),
        'jpeg cmyk': _saved(color.convert('CMYK'), 'JPEG'),
        'jpeg lossless': lossless(pixels),
        'jpeg lossless gray': lossless(pixels[..., :1]),
        'png 1 bit': _saved(color.convert('1'), 'PNG'),
        'png gray': _saved(gray, 'PNG', exif=exif),
        'png gray alpha': _saved(alpha.convert('LA'), 'PNG'),
        'png 16 bits': _saved(Image.fromarray(deep), 'PNG'),
        'png palette': _saved(palette, 'PNG', transparency=3),
        'png color': _saved(color, 'PNG'),
        'png alpha': _saved(alpha, 'PNG'),
        'gif': _saved(palette, 'GIF'),
        'gif animation': _saved(palette, 'GIF', save_all=True, append_images=[gray, color]),
        'webp': _saved(color, 'WEBP', exif=exif),
        'webp lossless': _saved(alpha, 'WEBP', lossless=True),
        'avif': _saved(color, 'AVIF', speed=10),
        'jpeg 2000': _saved(color, 'JPEG2000'),
        'bmp': _saved(color, 'BMP'),
        'bmp palette': _saved(palette, 'BMP'),
        'tga': _saved(color, 'TGA', compression='tga_rle'),
        'ppm': _saved(color, 'PPM'),
        'pgm text': b'P2 3 2 255\n' + b'1 2 3\n44 5 255\n',
        'sgi': _saved(color, 'SGI'),
        'pcx': _saved(color, 'PCX'),
        'dds': _saved(color, 'DDS'),
        'ico': _saved(alpha, 'ICO', sizes=[(16, 16), (32, 32)]),
        'ico bitmap': _saved(alpha, 'ICO', sizes=[(32, 32)], bitmap_format='bmp'),
    }
    for kind in ('jpeg', 'jpeg progressive'):
        # Any bytes are valid arithmetic code.
        files[f'{kind} arithmetic'] = with_frame(files[kind], 10 if 'progressive' in kind else 9)
    for compression in (None, 'packbits', 'tiff_lzw', 'tiff_adobe_deflate', 'jpeg'):
        files[f'tiff {compression}'] = _saved(color, 'TIFF', compression=compression, exif=exif)
    files['tiff group4'] = _saved(color.convert('1'), 'TIFF', compression='group4')
    bands = np.concatenate([pixels, pixels], axis=-1).astype(np.uint16)
    files['tiff bands'] = _tiff(bands, photometric='minisblack', planarconfig='contig')
    files['tiff planes'] = _tiff(
        bands.transpose(2, 0, 1), photometric='minisblack', planarconfig='separate'
    )
    files['tiff tiles'] = _tiff(
        pixels.astype(np.float32), tile=(16, 16), compression='zlib', predictor=True
    )
    for kind, array in dict(npy=bands, npy_bool=pixels > 90, npy_double=pixels[..., 0] / 7).items():
        file = io.BytesIO()
        np.save(file, array)
        files[kind] = file.getvalue()
    return files


def damage(data: bytes, other: bytes, random: np.random.Generator) -> bytes:
    """Flips bits, overwrites, cuts, duplicates or splices in parts of another file."""
    out = bytearray(data)
    for _ in range(random.choice([1, 1, 1, 2, 4, 16])):
        if len(out) < 2:
            break
        # Half of all damage is in the headers.
        place = int(random.integers(len(out) if random.random() < 0.5 else min(len(out), 200)))
        kind = random.integers(9)
        if kind <= 2:
            out[place] ^= 1 << int(random.integers(8))
        elif kind == 3:
            out[place] = int(random.integers(256))
        elif kind == 4:
            value = int(
                random.choice([0, 1, 0x7F, 0xFF, 0x7FFF, 0xFFFF, 13000, 0x7FFFFFFF, 0xFFFFFFFF])
            )
            order = random.choice(['<', '>'])
            out[place : place + 4] = struct.pack(f'{order}{"I" if value > 0xFFFF else "H"}', value)
        elif kind == 5:
            del out[place:]
            # A valid end.
            out += data[-int(random.integers(1, 13)) :] if random.random() < 0.5 else b''
        elif kind == 6:
            del out[place : place + int(random.integers(1, 40))]
        elif kind == 7:
            out[place:place] = out[place : place + int(random.integers(1, 400))]
        else:
            start = int(random.integers(len(other)))
            out[place : place + int(random.integers(40))] = other[
                start : start + int(random.integers(1, 200))
            ]
    if data[:3] == b'\xff\xd8\xff' and random.random() < 0.1:
        size = tuple(int(side) for side in random.integers(0, 65536, 2))
        out = with_frame(data, int(random.choice([0, 1, 2, 3, 5, 9, 10, 11])), size=size)
    return bytes(out)


def decode(data: bytes, random: np.random.Generator) -> str:
    """Decodes a file in one of the supported ways, and returns ``decoded`` or ``refused``.

    Raises:
        AssertionError: if the result is neither a valid array nor a ValueError, or decoding took
            more memory than allowed.
    """
    try:
        image = EncodedImage(data, color_type=str(random.choice(COLOR_TYPES)))
        for reduction in {1, int(random.choice([2, 4, 8]))}:
            pixels = image.pixels(reduction)
            assert pixels.ndim == 3 and min(pixels.shape) > 0 and pixels.dtype.kind in 'biuf', (
                pixels.shape
            )
            assert reduction > 1 or pixels.shape[:2] == image.size
    except ValueError as error:
        assert not isinstance(error.__cause__, MemoryError), f'out of memory: {error}'
        return 'refused'
    return 'decoded'


def case(number: int, seed: int, files: dict[str, bytes]) -> tuple[str, bytes, np.random.Generator]:
    """Returns name, content and generator of a damaged file, which depend only on the number."""
    random = np.random.default_rng((seed, number))
    names = list(files)
    name, other = names[number % len(names)], names[int(random.integers(len(names)))]
    return name, damage(files[name], files[other], random), random


def fuzz(cases: range, seed: int = 0) -> Counter:
    """Decodes damaged files in separate processes and counts ``decoded`` and ``refused``.

    Raises:
        AssertionError: for the first case that ends its process, raises another error or exceeds
            the limits; the message names the case.
    """
    context = multiprocessing.get_context('fork')
    current = context.Value('q', cases.start)
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=_work, args=(cases, seed, current, sender))
    process.start()
    sender.close()
    try:
        outcome = receiver.recv()
    except EOFError:
        outcome = 'the process ended'
    process.join()
    number = current.value
    name = list(seeds())[number % len(seeds())]
    assert isinstance(outcome, Counter), (
        f'{outcome} (exit code {process.exitcode}): case {number} of {seed}, {name}'
    )
    return outcome


def _work(cases: range, seed: int, current, sender) -> None:
    """Runs cases in a separate process, under limits."""
    warnings.simplefilter('ignore')
    logging.disable()
    files = seeds()
    with open('/proc/self/statm') as file:
        used = int(file.read().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + MEMORY, resource.RLIM_INFINITY))
    # A Python handler would wait for the decoder; without a handler, the signal ends the process.
    signal.signal(signal.SIGPROF, signal.SIG_DFL)
    outcomes: Counter = Counter()
    for number in cases:
        current.value = number
        name, data, random = case(number, seed, files)
        signal.setitimer(signal.ITIMER_PROF, SECONDS)
        begin = time.process_time()
        try:
            outcomes[decode(data, random)] += 1
        except BaseException as error:
            sender.send(f'{type(error).__name__}: {error}')
            return
        took = time.process_time() - begin
        if took > 1:
            print(f'case {number}, {name}, took {took:.1f} s', file=sys.stderr, flush=True)
        outcomes['milliseconds of the slowest'] = max(
            outcomes['milliseconds of the slowest'], int(1000 * took)
        )
    outcomes['MB of the largest'] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10
    sender.send(outcomes)


def _saved(image: Image.Image, kind: str, **options) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def _tiff(array: np.ndarray, **options) -> bytes:
    file = io.BytesIO()
    tifffile.imwrite(file, array, **options)
    return file.getvalue()


def main() -> None:
    parser = argparse.ArgumentParser(description='Decode damaged images.')
    parser.add_argument('--cases', type=int, default=10000, help='number of damaged files')
    parser.add_argument('--seed', type=int, default=0)
    parser.add_argument('--chunk', type=int, default=2000, help='files for one process')
    args = parser.parse_args()
    failures, total = [], Counter()
    start = 0
    while start < args.cases:
        try:
            outcome = fuzz(range(start, min(start + args.chunk, args.cases)), args.seed)
            for name, value in outcome.items():
                total[name] = max(total[name], value) if ' of the ' in name else total[name] + value
            start += args.chunk
        except AssertionError as error:
            failures.append(str(error))
            print(error, flush=True)
            # Continue with the next case.
            start = int(str(error).split('case ')[-1].split()[0]) + 1
    print(dict(total), f'{len(failures)} failures')


if __name__ == '__main__':
    main()
