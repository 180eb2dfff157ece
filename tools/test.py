"""Evaluates a checkpoint of a config, or with ``None`` in its place the model as it is built.

python tools/test.py configs/mae/benchmarks/vit-base-p16_8xb128-coslr-100e_in1k.py CHECKPOINT.pth
"""

import argparse
from copy import deepcopy

# Before imports that take seconds.
import early_signals  # noqa: F401

# isort: split
from mae_plugin.cli.arguments import Parser, add_common_arguments, positive
from mae_plugin.cli.errors import SetupErrors
from mae_plugin.cli.launch import check_checkpoint, check_data, load_config
from mae_plugin.utils.atomic_files import check_folder, check_output
from mmengine import dump
from mmengine.config import Config
from mmengine.evaluator import DumpResults


def parse_args() -> argparse.Namespace:
    """Parses the command line."""
    parser = Parser(description='Evaluate a model.')
    parser.add_argument('config', help='path of the config')
    parser.add_argument(
        'checkpoint', help='path or URL of the checkpoint, or None for the model as it is built'
    )
    parser.add_argument(
        '--out', help='file to write results to (.pkl for predictions, .json or .pkl for metrics)'
    )
    parser.add_argument(
        '--out-item',
        choices=['metrics', 'pred'],
        help='content of --out; predictions by default',
    )
    parser.add_argument('--show-dir', help='folder to draw predictions into')
    parser.add_argument('--show', action='store_true', help='show predictions in a window')
    parser.add_argument('--interval', type=positive, default=1, help='draw every n-th sample')
    parser.add_argument(
        '--wait-time', type=float, default=2, help='seconds for which a window is shown'
    )
    parser.add_argument(
        '--tta',
        action='store_true',
        help="average over test-time augmentations, the config's or a flip",
    )
    add_common_arguments(parser)
    args = parser.parse_args()
    if args.out_item and not args.out:
        parser.error(
            '--out-item chooses the content of --out, but --out is missing; add --out FILE'
        )
    if args.out and args.out_item != 'metrics' and not args.out.endswith(('.pkl', '.pickle')):
        parser.error(f'predictions are written as a pickle, so --out {args.out} must end in .pkl')
    if args.tta and (args.show or args.show_dir):
        parser.error(
            '--tta averages several views of an image, which cannot be drawn; leave out --show '
            'and --show-dir'
        )
    return args


def add_test_time_augmentation(cfg: Config) -> None:
    """Wraps model and pipeline for test-time augmentation: the config's, or a horizontal flip."""
    pipeline = cfg.test_dataloader.dataset.pipeline
    if 'tta_pipeline' not in cfg:
        flips = [dict(type='RandomFlip', prob=prob) for prob in (1.0, 0.0)]
        cfg.tta_pipeline = [
            *deepcopy(pipeline[:-1]),
            dict(type='TestTimeAug', transforms=[flips, [pipeline[-1]]]),
        ]
    cfg.model = dict(cfg.get('tta_model', dict(type='AverageClsScoreTTA')), module=cfg.model)
    cfg.test_dataloader.dataset.pipeline = cfg.tta_pipeline


def main() -> None:
    """Evaluates the model."""
    args = parse_args()
    with SetupErrors() as setup:
        cfg = load_config(args)
        if not cfg.get('test_dataloader') or not cfg.get('test_evaluator'):
            raise ValueError(
                f'{args.config} has no test_dataloader and test_evaluator, as pre-training has none'
            )
        cfg.load_from = None if args.checkpoint.lower() == 'none' else args.checkpoint
        cfg.resume = False
        if args.amp:
            cfg.test_cfg.fp16 = True
        if args.show or args.show_dir:
            cfg.default_hooks.visualization = dict(
                type='VisualizationHook',
                enable=True,
                show=args.show,
                wait_time=args.wait_time,
                out_dir=args.show_dir,
                interval=args.interval,
            )
        if args.tta:
            add_test_time_augmentation(cfg)

        # Checked before the evaluation, which may take hours.
        if args.out:
            check_output(args.out, 'another with --out FILE')
        if args.show_dir:
            check_folder(args.show_dir, 'another with --show-dir FOLDER')
        check_data(cfg, 'test_dataloader')
        check_checkpoint(cfg.load_from, 'to evaluate')

        runner = setup.build_runner(cfg)
        if args.out and args.out_item != 'metrics':
            runner.test_evaluator.metrics.append(DumpResults(out_file_path=args.out))
        metrics = runner.test()
    if args.out and args.out_item == 'metrics':
        dump(metrics, args.out)


if __name__ == '__main__':
    main()
