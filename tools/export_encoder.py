"""Exports the encoder of a checkpoint in any layout, without decoder and classifier.

python tools/export_encoder.py work_dirs/run/epoch_300.pth encoder.pth --to mmpretrain
python tools/export_encoder.py work_dirs/run/epoch_300.pth encoder.onnx --to onnx
"""

import argparse
from pathlib import Path

# Before all imports that take seconds.
import early_signals  # noqa: F401

# isort: split
from mae_plugin.cli.arguments import Parser, positive
from mae_plugin.cli.errors import SetupErrors
from mae_plugin.weights import trust_checkpoints
from mae_plugin.weights.convert import export_encoder, read_source


def parse_args() -> argparse.Namespace:
    """Parses the command line."""
    parser = Parser(description='Export an encoder.')
    parser.add_argument(
        'source', metavar='SRC', help='a .pth or .safetensors file, or a Hugging Face folder'
    )
    parser.add_argument(
        'target', metavar='DST', type=Path, help='.pth or .safetensors, .onnx, or a folder for hf'
    )
    parser.add_argument(
        '--to', choices=['mmpretrain', 'timm', 'hf', 'onnx'], required=True, help='what to write'
    )
    parser.add_argument('--num-heads', type=positive, help='attention heads, if SRC lacks them')
    parser.add_argument(
        '--src-grid',
        type=int,
        nargs=2,
        metavar=('ROWS', 'COLUMNS'),
        help='grid of patches of SRC, if it is neither stored nor a square',
    )
    parser.add_argument('--force', action='store_true', help='overwrite DST')
    parser.add_argument(
        '--trust-checkpoint',
        action='store_true',
        help='unpickle all that SRC holds, which can run any code',
    )
    return parser.parse_args()


def main() -> None:
    """Exports an encoder and prints where it came from."""
    args = parse_args()
    grid = tuple(args.src_grid) if args.src_grid else None
    with SetupErrors():
        if args.trust_checkpoint:
            trust_checkpoints()
        source = read_source(args.source, grid)
        difference = export_encoder(source, args.target, args.to, args.num_heads, args.force)
    print(f'{args.target}: the encoder of {args.source} ({source.content})')
    if difference is not None:
        print(f'largest difference from PyTorch: {difference:.1e}')


if __name__ == '__main__':
    main()
