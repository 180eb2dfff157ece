"""Writes the features of images into one file, and draws their patch tokens in color.

python tools/extract_features.py CONFIG.py CHECKPOINT.pth photos --out features.npz --pca tokens.png
"""

import argparse
from pathlib import Path

# Before imports that take seconds.
import early_signals  # noqa: F401

# isort: split
from mae_plugin.analysis.features import check_feature_file
from mae_plugin.apis import FeatureInferencer, draw_tokens, save_features, save_figure
from mae_plugin.cli.arguments import Parser, add_model_arguments, positive
from mae_plugin.cli.errors import SetupErrors
from mae_plugin.cli.launch import read_model_arguments
from mae_plugin.utils.printable import printable


def parse_args() -> argparse.Namespace:
    """Parses the command line."""
    parser = Parser(description=__doc__.split('\n\n')[0])
    add_model_arguments(parser)
    parser.add_argument(
        '--out', type=Path, required=True, metavar='FILE', help='.npz, or .parquet with pyarrow'
    )
    parser.add_argument(
        '--pool',
        choices=['mean', 'cls'],
        default='mean',
        help='mean of the patch tokens, or class token',
    )
    parser.add_argument(
        '--pca', type=Path, metavar='PICTURE', help='picture of principal components of the tokens'
    )
    parser.add_argument('--pca-images', type=positive, default=16, help='images in that picture')
    return parser.parse_args()


def main() -> None:
    """Extracts and writes the features."""
    args = parse_args()
    with SetupErrors():
        check_feature_file(args.out, args.force)
        model, pretrained, images = read_model_arguments(args)
        inferencer = FeatureInferencer(model, pretrained, args.device)
        features = inferencer(images, batch_size=args.batch_size, pool=args.pool)
        save_features(args.out, features, images, args.force)
        print(printable(f'{args.out}: {features.shape[1]} features of {len(images)} images'))
        if args.pca:
            pictures, colors = inferencer.color_patches(images[: args.pca_images], args.batch_size)
            save_figure(draw_tokens(pictures, colors), args.pca, args.force)
            print(printable(args.pca))


if __name__ == '__main__':
    main()
