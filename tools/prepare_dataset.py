"""Packs a folder or an archive of images into tar files that training reads without unpacking.

python tools/prepare_dataset.py photographs/ shards/ --size 256
python tools/prepare_dataset.py imagenet.zip shards/train --inside imagenet/train
"""

import argparse

# Before all that takes seconds to import.
import early_signals  # noqa: F401

# isort: split
from mae_plugin.apis.errors import SetupErrors
from mae_plugin.cli.arguments import Parser, positive
from mae_plugin.data.prepare import Plan, prepare
from mae_plugin.data.sources.entries import IMAGE_EXTENSIONS
from mae_plugin.utils.printable import printable
from rich.console import Console
from rich.text import Text


def parse_args() -> argparse.Namespace:
    parser = Parser(description=__doc__.split('\n\n')[0])
    parser.add_argument(
        'source', metavar='SRC', help='a folder of images, or a zip or tar file, compressed or not'
    )
    parser.add_argument(
        'target', metavar='DST', help='a new folder; or one that was begun, to go on'
    )
    parser.add_argument(
        '--inside',
        default='',
        metavar='FOLDER',
        help='take the images of this folder within SRC alone',
    )
    parser.add_argument(
        '--size', type=int, help='reduce the shorter side of larger images to so many pixels'
    )
    parser.add_argument(
        '--quality', type=int, default=95, help='of the JPEGs that reduced images become'
    )
    parser.add_argument('--per-shard', type=int, default=2000, help='images in a tar file')
    parser.add_argument(
        '--extensions',
        nargs='+',
        default=IMAGE_EXTENSIONS,
        metavar='.EXT',
        help='endings of image files',
    )
    parser.add_argument('--workers', type=positive, help='processes; one for each core if left out')
    return parser.parse_args()


def main() -> None:
    args = parse_args()
    with SetupErrors():
        plan = Plan(
            args.source, args.inside, args.size, args.quality, args.per_shard, args.extensions
        )
        manifest = prepare(plan, args.target, args.workers)
    console = Console(soft_wrap=True)
    for fault in manifest['skipped'][:20]:
        # Names of files are no markup.
        console.print(Text(printable(f'left out {fault["name"]}: {fault["reason"]}'), 'yellow'))
    if len(manifest['skipped']) > 20:
        console.print(
            f'[yellow]and {len(manifest["skipped"]) - 20} more, listed in the manifest[/]'
        )
    summary = (
        f'{manifest["images"]:,} images, {manifest["bytes"] / 1e6:,.1f} MB, '
        f'{len(manifest["shards"])} tar files, '
        f'{len(manifest["skipped"])} left out: {args.target}/manifest.json'
    )
    console.print(Text(printable(summary)))


if __name__ == '__main__':
    main()
