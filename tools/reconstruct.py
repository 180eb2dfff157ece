"""Draws reconstructions of images, at one or several mask ratios, into one figure for print.

python tools/reconstruct.py mae_vit-base-p16_8xb512-amp-coslr-1600e_in1k photos/*.jpg --out pictures
python tools/reconstruct.py CONFIG.py CHECKPOINT.pth photos --mask-ratio 0.75 0.95 --out pictures
"""

import argparse
from pathlib import Path

# Before imports that take seconds.
import early_signals  # noqa: F401

# isort: split
from mae_plugin.apis import ReconstructionInferencer, draw_grid, save_figure
from mae_plugin.cli.arguments import Parser, add_model_arguments, positive
from mae_plugin.cli.errors import SetupErrors
from mae_plugin.cli.launch import read_model_arguments
from mae_plugin.utils.atomic_files import check_free
from mae_plugin.utils.printable import printable
from rich.console import Console
from rich.table import Table
from rich.text import Text

KINDS = ['masked', 'reconstruction', 'pasted']


def parse_args() -> argparse.Namespace:
    """Parses the command line."""
    parser = Parser(description=__doc__.split('\n\n')[0])
    add_model_arguments(parser)
    parser.add_argument(
        '--out', type=Path, required=True, metavar='DIR', help='folder for the figures'
    )
    parser.add_argument(
        '--mask-ratio',
        type=float,
        nargs='+',
        help="shares of patches to remove; by default the model's",
    )
    parser.add_argument('--seed', type=int, default=0, help='seed of the masks')
    parser.add_argument(
        '--use-ground-truth-stats',
        action='store_true',
        help='with normalized targets, scale removed patches by their true mean and standard '
        'deviation',
    )
    parser.add_argument(
        '--bands', type=int, nargs=3, help='channels to show as red, green and blue'
    )
    parser.add_argument(
        '--show',
        nargs='+',
        choices=KINDS,
        help='pictures beside the original; by default all three, and for several ratios masked '
        'and pasted',
    )
    parser.add_argument(
        '--format', choices=['png', 'pdf', 'svg'], default='png', help='format of the figures'
    )
    parser.add_argument(
        '--rows', type=positive, default=8, help='images in a figure; more images make more figures'
    )
    return parser.parse_args()


def main() -> None:
    """Draws the figures and prints the losses."""
    args = parse_args()
    with SetupErrors():
        model, pretrained, images = read_model_arguments(args)
        pages = range(0, len(images), args.rows)
        numbers = [''] if len(pages) == 1 else [f'_{i:03d}' for i in range(1, len(pages) + 1)]
        paths = [args.out / f'reconstruction{number}.{args.format}' for number in numbers]
        check_free(paths, args.force)
        inferencer = ReconstructionInferencer(model, pretrained, args.device, bands=args.bands)
        settings = dict(
            seed=args.seed,
            use_ground_truth_stats=args.use_ground_truth_stats,
            batch_size=args.batch_size,
        )
        ratios = args.mask_ratio or [None]
        columns = [inferencer(images, mask_ratio=ratio, **settings) for ratio in ratios]
        rows = list(zip(*columns, strict=True))
        kinds = args.show
        if kinds is None:
            kinds = ['masked', 'pasted'] if len(ratios) > 1 else KINDS
        for path, start in zip(paths, pages, strict=True):
            figure = draw_grid(rows[start : start + args.rows], kinds)
            save_figure(figure, path, args.force)
    table = Table('image', 'masked', 'loss')
    for result in (result for row in rows for result in row):
        table.add_row(
            Text(printable(result.path)), f'{result.mask.mean():.0%}', f'{result.loss:.4f}'
        )
    Console().print(table)
    print(*map(printable, paths), sep='\n')


if __name__ == '__main__':
    main()
