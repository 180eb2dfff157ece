"""Packs a folder or an archive of images into tar files that training reads without unpacking.

python tools/prepare_dataset.py photographs/ shards/ --size 256
python tools/prepare_dataset.py imagenet.zip shards/train --inside imagenet/train
"""

import argparse

# Before imports that take seconds.
import early_signals  # noqa: F401

# isort: split
from mae_plugin.cli.arguments import Parser, positive
from mae_plugin.cli.errors import SetupErrors
from mae_plugin.data.prepare import Plan, prepare
from mae_plugin.data.sources.entries import IMAGE_EXTENSIONS
from mae_plugin.utils.printable import printable
from rich.console import Console
from rich.text import Text


def parse_args() -> argparse.Namespace:
    """Parses the command line."""
    parser = Parser(description=__doc__.split('\n\n')[0])
    parser.add_argument(
        'source', metavar='SRC', help='a folder of images, or a zip or tar file, compressed or not'
    )
    parser.add_argument(
        'target', metavar='DST', help='a new folder, or one that was begun, to continue'
    )
    parser.add_argument(
        '--inside',
        default='',
        metavar='FOLDER',
        help='folder within SRC to take images from',
    )
    parser.add_argument(
        '--size', type=int, help='pixels to which the shorter side of larger images is reduced'
    )
    parser.add_argument('--quality', type=int, default=95, help='JPEG quality of reduced images')
    parser.add_argument('--per-shard', type=int, default=2000, help='images in a tar file')
    parser.add_argument(
        '--extensions',
        nargs='+',
        default=IMAGE_EXTENSIONS,
        metavar='.EXT',
        help='file name extensions of images',
    )
    parser.add_argument('--workers', type=positive, help='processes; one for each core by default')
    return parser.parse_args()


def main() -> None:
    """Writes the tar files and lists the damaged images."""
    args = parse_args()
    with SetupErrors():
        plan = Plan(
            args.source, args.inside, args.size, args.quality, args.per_shard, args.extensions
        )
        manifest = prepare(plan, args.target, args.workers)
    console = Console(soft_wrap=True)
    for image in manifest['skipped'][:20]:
        # Text, because file names are not rich's markup.
        console.print(Text(printable(f'left out {image["name"]}: {image["reason"]}'), 'yellow'))
    if len(manifest['skipped']) > 20:
        console.print(
            f'[yellow]and {len(manifest["skipped"]) - 20} more, listed in the manifest[/]'
        )
    summary = (
        f'{manifest["images"]:,} images, {manifest["bytes"] / 1e6:,.1f} MB, '
        f'{len(manifest["shards"])} tar files, {len(manifest["skipped"])} left out: '
        f'{args.target}/manifest.json'
    )
    console.print(Text(printable(summary)))


if __name__ == '__main__':
    main()
