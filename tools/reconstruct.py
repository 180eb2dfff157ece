"""Draws what a masked autoencoder makes of images, at one or several mask ratios, into one figure
for printing.

python tools/reconstruct.py mae_vit-base-p16_8xb512-amp-coslr-1600e_in1k photos/*.jpg --out pictures
python tools/reconstruct.py CONFIG.py CHECKPOINT.pth photos --mask-ratio 0.75 0.85 0.95 --out
pictures
"""

import argparse
from pathlib import Path

# Before all that takes seconds to import.
import early_signals  # noqa: F401

# isort: split
from mae_plugin.apis import ReconstructionInferencer, draw_grid, save_figure
from mae_plugin.apis.errors import SetupErrors
from mae_plugin.apis.launch import read_model_arguments
from mae_plugin.cli.arguments import Parser, add_model_arguments, positive
from mae_plugin.utils.atomic_files import check_free
from mae_plugin.utils.printable import printable
from rich.console import Console
from rich.table import Table
from rich.text import Text


def parse_args() -> argparse.Namespace:
    parser = Parser(description=__doc__.split('\n\n')[0])
    add_model_arguments(parser)
    parser.add_argument(
        '--out', type=Path, required=True, metavar='DIR', help='folder for the figures'
    )
    parser.add_argument(
        '--mask-ratio', type=float, nargs='+', help="shares of patches to remove; the model's own"
    )
    parser.add_argument('--seed', type=int, default=0, help='of the masks')
    parser.add_argument(
        '--use-ground-truth-stats',
        action='store_true',
        help='bring removed patches back by their own mean and standard deviation, where targets are normalised',
    )
    parser.add_argument(
        '--bands', type=int, nargs=3, help='channels to show as red, green and blue'
    )
    parser.add_argument(
        '--show',
        nargs='+',
        choices=['masked', 'reconstruction', 'pasted'],
        help='pictures beside the original; all three, and for several ratios masked and pasted',
    )
    parser.add_argument(
        '--format', choices=['png', 'pdf', 'svg'], default='png', help='of the figures'
    )
    parser.add_argument(
        '--rows', type=positive, default=8, help='images in a figure; more images make more figures'
    )
    args = parser.parse_args()
    if args.rows < 1:
        parser.error(f'--rows {args.rows} leaves no room for an image')
    return args


def main() -> None:
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
        rows = list(
            zip(
                *(inferencer(images, mask_ratio=ratio, **settings) for ratio in ratios), strict=True
            )
        )
        all_or_two = (
            ('masked', 'reconstruction', 'pasted') if len(ratios) == 1 else ('masked', 'pasted')
        )
        for path, start in zip(paths, pages, strict=True):
            save_figure(
                draw_grid(rows[start : start + args.rows], args.show or all_or_two),
                path,
                args.force,
            )
    table = Table('image', 'masked', 'loss')
    for result in (result for row in rows for result in row):
        table.add_row(
            Text(printable(result.path)), f'{result.mask.mean():.0%}', f'{result.loss:.4f}'
        )
    Console().print(table)
    print(*map(printable, paths), sep='\n')


if __name__ == '__main__':
    main()
