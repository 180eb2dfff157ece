"""Trains the model of a config: pre-training, fine-tuning or any other config of mmpretrain.

python tools/train.py configs/mae/mae_vit-base-p16_8xb512-amp-coslr-300e_in1k.py
"""

import argparse

# Before imports that take seconds.
import early_signals  # noqa: F401

# isort: split
from mae_plugin.cli.arguments import Parser, add_common_arguments, positive
from mae_plugin.cli.errors import SetupErrors
from mae_plugin.cli.launch import (
    check_checkpoint,
    check_data,
    load_config,
    pretrained_weights,
    replace_pretrained,
)
from mae_plugin.engine.config.total_batch import keep_total_batch, set_total_batch
from mae_plugin.engine.hooks.preemption import ignore_signals
from mae_plugin.engine.hooks.run_lock import lock_early


def parse_args() -> argparse.Namespace:
    """Parses the command line."""
    parser = Parser(description='Train a model.')
    parser.add_argument('config', help='path of the config')
    parser.add_argument(
        '--resume',
        nargs='?',
        const='auto',
        metavar='CHECKPOINT',
        help='resume from this checkpoint; without CHECKPOINT, from the latest in the work dir',
    )
    parser.add_argument(
        '--pretrained',
        metavar='CHECKPOINT',
        help='start from this encoder instead of the one in the config',
    )
    parser.add_argument(
        '--batch-size',
        type=positive,
        metavar='IMAGES',
        help='images per step and GPU; gradients are accumulated up to the total batch size of the '
        'recipe',
    )
    parser.add_argument(
        '--accumulate',
        type=positive,
        metavar='STEPS',
        help='steps per update; without --batch-size, images per step follow from the total batch '
        'size of the recipe',
    )
    parser.add_argument(
        '--no-validate', action='store_true', help='do not evaluate during training'
    )
    parser.add_argument(
        '--auto-scale-lr',
        action='store_true',
        help='scale the learning rate with the total batch size (on in the configs of mae_plugin)',
    )
    parser.add_argument(
        '--no-persistent-workers',
        action='store_true',
        help='restart data-loader workers in every epoch',
    )
    add_common_arguments(parser)
    return parser.parse_args()


def main() -> None:
    """Trains the model."""
    args = parse_args()
    with SetupErrors() as setup:
        cfg = load_config(args)
        if args.no_validate:
            cfg.val_cfg = cfg.val_dataloader = cfg.val_evaluator = None
        if args.amp:
            cfg.optim_wrapper.type = 'AutoAmpOptimWrapper'
            cfg.optim_wrapper.pop('loss_scale', None)
            cfg.optim_wrapper.pop('dtype', None)
        if args.auto_scale_lr:
            if 'base_batch_size' not in cfg.get('auto_scale_lr', {}):
                raise ValueError(
                    f'{args.config} has no auto_scale_lr.base_batch_size, the total batch size of '
                    'its learning rate; add it to use --auto-scale-lr'
                )
            cfg.auto_scale_lr.enable = True
        set_total_batch(cfg, args.batch_size, args.accumulate)
        if args.no_persistent_workers:
            for name in ('train_dataloader', 'val_dataloader'):
                (cfg.get(name) or {}).pop('persistent_workers', None)
        if args.resume:
            cfg.resume = True
            cfg.load_from = None if args.resume == 'auto' else args.resume

        check_data(cfg, 'train_dataloader', 'val_dataloader')
        check_checkpoint(cfg.get('load_from'), 'to load')
        if args.resume and args.batch_size is None and args.accumulate is None:
            keep_total_batch(cfg)
        if args.pretrained:
            replace_pretrained(cfg, args.pretrained)
        for _, path in pretrained_weights(cfg.model):
            check_checkpoint(path, 'to start from; name yours with --pretrained PATH')

        lock_early(cfg)
        setup.build_runner(cfg).train()
    # A signal during shutdown must not change the exit code.
    ignore_signals()


if __name__ == '__main__':
    main()
