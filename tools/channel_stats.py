"""Measures mean and standard deviation of every channel of the training images of a config.

python tools/channel_stats.py configs/mae/mae_vit-mini-p12_bands-120px.py --data-root data/tiles

Reads as training does: by the dataset of the config and the first step of its pipeline. Prints what
goes into ``data_preprocessor``, with channels in the order in which it sees them and without pixels
that hold its ``nodata``.
"""

import argparse

# Before all that takes seconds to import.
import early_signals  # noqa: F401

# isort: split
from mae_plugin.apis.errors import SetupErrors
from mae_plugin.apis.launch import check_data, load_config
from mae_plugin.cli.arguments import Parser, add_common_arguments, natural, positive
from mae_plugin.data.statistics import channel_statistics
from mmengine.registry import DefaultScope
from mmpretrain.registry import DATASETS


def parse_args() -> argparse.Namespace:
    parser = Parser(description='Measure mean and standard deviation of every channel.')
    parser.add_argument('config', help='path of the config')
    parser.add_argument(
        '--max-images', type=positive, help='read so many, chosen at random; all if left out'
    )
    parser.add_argument('--num-workers', type=natural, default=2, help='processes that read')
    add_common_arguments(parser)
    args = parser.parse_args()
    if args.max_images is not None and args.max_images < 1:
        parser.error(f'--max-images {args.max_images} leaves nothing to measure')
    return args


def main() -> None:
    args = parse_args()
    with SetupErrors():
        cfg = load_config(args)
        check_data(cfg, 'train_dataloader')
        preprocessor = cfg.model.get('data_preprocessor') or cfg.get('data_preprocessor') or {}
        dataset = {
            **cfg.train_dataloader.dataset,
            'pipeline': cfg.train_dataloader.dataset.pipeline[:1],
        }
        nodata = preprocessor.get('nodata')
        with DefaultScope.overwrite_default_scope(cfg.get('default_scope', 'mmpretrain')):
            found = channel_statistics(
                DATASETS.build(dataset),
                None if nodata is None else float(nodata),
                args.max_images,
                args.num_workers,
            )
    order = (
        slice(None, None, -1)
        if preprocessor.get('to_rgb') and len(found.mean) == 3
        else slice(None)
    )
    print(f'{found.images} images, {found.pixels:,} pixels')
    for name, values in (('mean', found.mean), ('std', found.std)):
        print(f'{name}=[{", ".join(f"{value:.6g}" for value in values[order])}],')


if __name__ == '__main__':
    main()
