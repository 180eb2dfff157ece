"""Draws loss, learning rate or other logged quantities over the steps of one or several runs.

python tools/plot_log.py work_dirs/one work_dirs/other --out curves.png
"""

import argparse
from pathlib import Path

# Before imports that take seconds.
import early_signals  # noqa: F401

# isort: split
from mae_plugin.apis import draw_curves, read_log, save_figure
from mae_plugin.cli.arguments import Parser
from mae_plugin.cli.errors import SetupErrors


def parse_args() -> argparse.Namespace:
    """Parses the command line."""
    parser = Parser(description=__doc__.split('\n\n')[0])
    parser.add_argument(
        'runs', nargs='+', type=Path, metavar='RUN', help='work dir of a run, or its scalars.json'
    )
    parser.add_argument(
        '--keys', nargs='+', default=['loss', 'lr'], help='quantities, such as probe/knn_top1'
    )
    parser.add_argument(
        '--out', type=Path, required=True, metavar='PICTURE', help='.png, .pdf or .svg'
    )
    parser.add_argument('--force', action='store_true', help='overwrite an existing file')
    return parser.parse_args()


def main() -> None:
    """Draws the curves."""
    args = parse_args()
    with SetupErrors():
        runs = {str(run): read_log(run) for run in args.runs}
        save_figure(draw_curves(runs, args.keys), args.out, args.force)
    print(args.out)


if __name__ == '__main__':
    main()
