"""Converts weights between the layouts of mmpretrain, the MAE authors, timm and Hugging Face.

python tools/convert_checkpoint.py mae_pretrain_vit_base.pth ours.pth --to mmpretrain
python tools/convert_checkpoint.py work_dirs/run/epoch_300.pth vit-mae --to hf

A folder without a suffix is for Hugging Face's from_pretrained.
"""

import argparse
from pathlib import Path

# Before all imports that take seconds.
import early_signals  # noqa: F401

# isort: split
from mae_plugin.cli.arguments import Parser, positive
from mae_plugin.cli.errors import SetupErrors
from mae_plugin.weights import trust_checkpoints
from mae_plugin.weights.architecture import sizes_of
from mae_plugin.weights.convert import read_source, resize, write_target
from mae_plugin.weights.layouts import LAYOUTS


def parse_args() -> argparse.Namespace:
    """Parses the command line."""
    parser = Parser(description='Convert weights between layouts.')
    parser.add_argument(
        'source', metavar='SRC', help='a .pth or .safetensors file, or a Hugging Face folder'
    )
    parser.add_argument(
        'target', metavar='DST', type=Path, help='.pth or .safetensors; for hf also a folder'
    )
    parser.add_argument('--to', choices=LAYOUTS, required=True, help='layout to write')
    parser.add_argument(
        '--num-heads', type=positive, help="the encoder's attention heads, if SRC lacks them"
    )
    parser.add_argument(
        '--decoder-num-heads',
        type=positive,
        help="the decoder's attention heads, if SRC lacks them",
    )
    parser.add_argument(
        '--img-size',
        type=positive,
        nargs='+',
        metavar='PIXELS',
        help='adapt the weights to images of this height [and width]',
    )
    parser.add_argument(
        '--src-grid',
        type=int,
        nargs=2,
        metavar=('ROWS', 'COLUMNS'),
        help='grid of patches of SRC, if it is neither stored nor a square',
    )
    parser.add_argument(
        '--in-channels', type=positive, help='adapt the weights to images of so many channels'
    )
    parser.add_argument('--force', action='store_true', help='overwrite DST')
    parser.add_argument(
        '--trust-checkpoint',
        action='store_true',
        help='unpickle all that SRC holds, which can run any code',
    )
    args = parser.parse_args()
    if args.img_size and len(args.img_size) > 2:
        parser.error(f'--img-size takes a height and a width, but got {len(args.img_size)} numbers')
    return args


def main() -> None:
    """Converts a checkpoint and prints a summary."""
    args = parse_args()
    img_size = (args.img_size[0], args.img_size[-1]) if args.img_size else None
    grid = tuple(args.src_grid) if args.src_grid else None
    with SetupErrors():
        if args.trust_checkpoint:
            trust_checkpoints()
        source = read_source(args.source, grid)
        resize(source, img_size, args.in_channels)
        sizes = sizes_of(source.state_dict, source.grid)
        weights = write_target(
            source, args.target, args.to, args.num_heads, args.decoder_num_heads, args.force
        )
    (height, width), (patch_height, patch_width) = sizes.img_size, sizes.patch_size
    number = sum(tensor.numel() for tensor in weights.values())
    summary = {
        'source': f'{args.source}, {source.content}',
        'target': f'{args.target}, layout {args.to}',
        'tensors': len(weights),
        'parameters': f'{number:,}',
        'encoder': f'{sizes.num_layers} layers of width {sizes.embed_dims}',
        'images': f'{height} x {width}, {sizes.in_channels} channels, patches of {patch_height} x '
        f'{patch_width}',
    }
    for name, value in summary.items():
        print(f'{name:<11} {value}')


if __name__ == '__main__':
    main()
