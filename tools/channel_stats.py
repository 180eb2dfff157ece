"""Measures mean and standard deviation of every channel of the training images of a config.

python tools/channel_stats.py configs/mae/mae_vit-mini-p12_bands-120px.py --data-root data/tiles

Reads images as training does, with the dataset of the config and the first step of its pipeline.
Prints the values for ``data_preprocessor``, in its channel order and without pixels of its
``nodata``.
"""

import argparse

# Before imports that take seconds.
import early_signals  # noqa: F401

# isort: split
from mae_plugin.cli.arguments import Parser, add_common_arguments, natural, positive
from mae_plugin.cli.errors import SetupErrors
from mae_plugin.cli.launch import check_data, load_config
from mae_plugin.data.statistics import channel_statistics
from mmengine.registry import DefaultScope
from mmpretrain.registry import DATASETS


def parse_args() -> argparse.Namespace:
    """Parses the command line."""
    parser = Parser(description='Measure mean and standard deviation of every channel.')
    parser.add_argument('config', help='path of the config')
    parser.add_argument(
        '--max-images', type=positive, help='number of images, chosen at random; all by default'
    )
    parser.add_argument('--num-workers', type=natural, default=2, help='reading processes')
    add_common_arguments(parser)
    args = parser.parse_args()
    return args


def main() -> None:
    """Measures and prints the statistics."""
    args = parse_args()
    with SetupErrors():
        cfg = load_config(args)
        check_data(cfg, 'train_dataloader')
        preprocessor = cfg.model.get('data_preprocessor') or cfg.get('data_preprocessor') or {}
        dataset = dict(cfg.train_dataloader.dataset)
        dataset['pipeline'] = dataset['pipeline'][:1]
        nodata = preprocessor.get('nodata')
        with DefaultScope.overwrite_default_scope(cfg.get('default_scope', 'mmpretrain')):
            found = channel_statistics(
                DATASETS.build(dataset),
                None if nodata is None else float(nodata),
                args.max_images,
                args.num_workers,
            )
    # Images are read as BGR, and the preprocessor reverses them before it normalizes.
    is_reversed = preprocessor.get('to_rgb') and len(found.mean) == 3
    print(f'{found.images} images, {found.pixels:,} pixels')
    for name, values in (('mean', found.mean), ('std', found.std)):
        if is_reversed:
            values = values[::-1]
        print(f'{name}=[{", ".join(f"{value:.6g}" for value in values)}],')


if __name__ == '__main__':
    main()
