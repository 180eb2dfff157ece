"""Counts parameters and multiply-adds of every model in the index, beside the published ones.

python tools/model_zoo.py            # the table, in Markdown
python tools/model_zoo.py --check    # exit code 1 on any difference

FLOPs are multiply-adds of the unmasked forward pass on one image, as ``mmengine.analysis`` counts
them. The last column is the computation of a pre-training step per image: forward pass at 75 %
masking, two operations per multiply-add, times three for the backward pass.
"""

import argparse
import fnmatch
import sys

import torch
import yaml
from mae_plugin import MAE
from mae_plugin.registry import asset_root
from mmengine.analysis import get_model_complexity_info
from mmengine.config import Config
from mmengine.logging import MMLogger
from mmengine.registry import DefaultScope
from mmpretrain.models.utils.attention import (
    MultiheadAttention,
    scaled_dot_product_attention_pyimpl,
)
from mmpretrain.registry import MODELS
from rich.console import Console
from rich.progress import track
from torch.utils.flop_counter import FlopCounterMode


def build(config: Config, device: str) -> torch.nn.Module:
    """Builds the model of a config without weights, with attention as matrix products."""
    config.model.setdefault('data_preprocessor', config.get('data_preprocessor'))
    with DefaultScope.overwrite_default_scope('mmpretrain'), torch.device(device):
        model = MODELS.build(config.model).eval()
    for module in model.modules():
        if isinstance(module, MultiheadAttention):
            # Neither counter supports torch's fused attention.
            module.scaled_dot_product_attention = scaled_dot_product_attention_pyimpl
    return model


def count_parameters(config: Config) -> int:
    """Returns the number of parameters, trained or not; on the meta device, to save memory."""
    return sum(parameter.numel() for parameter in build(config, 'meta').parameters())


def count_flops(config: Config) -> int:
    """Returns the multiply-adds of the unmasked forward pass on one image.

    It runs on the CPU, because mmengine's analyzer fails on the meta device.
    """
    size = config.model.backbone.get('img_size', 224)
    with torch.inference_mode():
        info = get_model_complexity_info(
            build(config, 'cpu'), (3, size, size), show_table=False, show_arch=False
        )
    return int(info['flops'])


def count_step(config: Config) -> int | None:
    """Returns the operations of a pre-training step per image; None for a classifier."""
    model = build(config, 'meta')
    if not isinstance(model, MAE):
        return None
    with FlopCounterMode(display=False) as counter:
        model.loss(torch.zeros(1, 3, *model.backbone.img_size, device='meta'))
    # The backward pass takes about twice the operations of the forward pass.
    return 3 * counter.get_total_flops()


def missing_from_published(config: Config) -> int:
    """Returns the parameters that the published figure omits: the LayerNorm after pooling."""
    if config.model.backbone.get('out_type') == 'avg_featmap':
        return 2 * config.model.head.in_channels
    return 0


def main() -> None:
    """Prints the table, or checks it."""
    parser = argparse.ArgumentParser(description=__doc__.split('\n\n')[0])
    parser.add_argument('--check', action='store_true', help='compare with the published figures')
    parser.add_argument(
        '--only', default='*', metavar='PATTERN', help='models whose name matches, such as *base*'
    )
    args = parser.parse_args()
    # The analyzer warns of every module without computation, such as dropout in evaluation.
    MMLogger.get_current_instance().setLevel('ERROR')
    root = asset_root()
    index = yaml.safe_load((root / 'configs/mae/metafile.yml').read_text())['Models']
    index = [model for model in index if fnmatch.fnmatch(model['Name'], args.only)]
    if not index:
        parser.error(f'no model is named like {args.only}')

    counted: dict[str, tuple] = {}
    rows, wrong = [], []
    for model in track(index, 'Counting', console=Console(stderr=True)):
        config = Config.fromfile(root / model['Config'])
        # Models that differ only in their weights are counted once.
        key = str(config.model).replace(str(config.model.backbone.get('init_cfg')), '')
        if key not in counted:
            counted[key] = count_parameters(config), count_flops(config), count_step(config)
        parameters, flops, step = counted[key]
        published = model['Metadata']['Parameters'], model['Metadata']['FLOPs']
        accuracy = model['Results'][0]['Metrics']['Top 1 Accuracy'] if model['Results'] else None
        columns = [
            model['Name'],
            f'{parameters:,}',
            f'{published[0] / 1e6:.2f}',
            f'{flops / 1e9:.2f}',
            f'{published[1] / 1e9:.2f}',
            f'{accuracy:.1f}' if accuracy else '',
            f'{step / 1e9:.2f}' if step else '',
        ]
        rows.append(f'| {" | ".join(columns)} |')
        if parameters != published[0] + missing_from_published(config):
            wrong.append(f'{model["Name"]}: {parameters} parameters, published {published[0]}')
        # Exact for the encoders. The published figures of classifiers omit the classification
        # layer, a few millionths.
        digits = 9 if accuracy is None else 2
        if f'{flops / 1e9:.{digits}f}' != f'{published[1] / 1e9:.{digits}f}':
            wrong.append(f'{model["Name"]}: {flops} FLOPs, published {published[1]}')

    print(
        '| model | parameters | published, M | FLOPs, G | published, G | top-1 %, published | '
        'training step, GFLOP |'
    )
    print('|---|---|---|---|---|---|---|')
    print('\n'.join(rows))
    if args.check:
        print('\n'.join(wrong) or 'Every figure is as published.', file=sys.stderr)
        sys.exit(bool(wrong))


if __name__ == '__main__':
    main()
