"""Runs mmpretrain's own tools on the shipped configs, one after the other in one process.

python -m tests.mmpretrain_tools FOLDER writes the result of each tool into FOLDER/results.json.
"""

import contextlib
import io
import json
import os
import runpy
import sys
import traceback
from pathlib import Path

import mmpretrain
import numpy as np
from PIL import Image

TOOLS = Path(mmpretrain.__file__).parent / '.mim/tools'
CONFIGS = Path(__file__).resolve().parents[1] / 'configs/mae/small_data'
FINETUNE = str(CONFIGS / 'vit-mini-p8_1xb128-coslr-8e_64px.py')
PRETRAIN = str(CONFIGS / 'mae_vit-mini-p8_1xb128-coslr-20e_64px.py')
CHECKPOINT = 'work/finetune/epoch_2.pth'

LOADERS = [
    f'{name}_dataloader.{setting}'
    for name in ('train', 'val', 'test')
    for setting in (
        'dataset.data_root=data',
        'batch_size=4',
        'num_workers=0',
        'persistent_workers=False',
    )
]
MODEL = [
    'model.head.num_classes=3',
    'model.backbone.init_cfg=None',
    'data_preprocessor.num_classes=3',
]
OPTIONS = ['--cfg-options', *LOADERS, *MODEL]
EPOCHS = ['train_cfg.max_epochs=2', 'train_cfg.val_interval=1', 'param_scheduler.warmup=1']
SCHEDULE = ['--not-show', '-d', '512', '-s']
WRAPPED = [
    option.replace('model.', 'model.module.', 1) if option in MODEL[:2] else option
    for option in OPTIONS
]

COMMANDS = {
    'train': ['train.py', FINETUNE, '--work-dir', 'work/finetune', *OPTIONS, *EPOCHS],
    'test': [
        'test.py',
        FINETUNE,
        CHECKPOINT,
        '--out',
        'work/predictions.pkl',
        '--show-dir',
        'shown',
        *OPTIONS,
    ],
    'test --tta': ['test.py', FINETUNE, CHECKPOINT, '--tta', *WRAPPED],
    'kfold': [
        'kfold-cross-valid.py',
        FINETUNE,
        '--num-splits',
        '2',
        '--work-dir',
        'work/kfold',
        *OPTIONS,
        *EPOCHS,
    ],
    'publish': ['model_converters/publish_model.py', CHECKPOINT, 'work/published.pth'],
    'schedule': ['visualization/vis_scheduler.py', PRETRAIN, *SCHEDULE, 'work/pretrain.png'],
    'schedule of fine-tuning': [
        'visualization/vis_scheduler.py',
        FINETUNE,
        *SCHEDULE,
        'work/finetune.png',
        '--cfg-options',
        'optim_wrapper.constructor=MergedOptimWrapperConstructor',
    ],
    't-SNE': [
        'visualization/vis_tsne.py',
        FINETUNE,
        '--checkpoint',
        CHECKPOINT,
        '--perplexity',
        '3',
        *OPTIONS,
    ],
    'browse': [
        'visualization/browse_dataset.py',
        FINETUNE,
        '-o',
        'browsed',
        '--not-show',
        '-m',
        'original',
        *OPTIONS,
    ],
    'verify': [
        'misc/verify_dataset.py',
        'verify.py',
        '--out-path',
        'work/broken.log',
        *OPTIONS[:2],
    ],
    'print': ['misc/print_config.py', FINETUNE],
    'flops': ['analysis_tools/get_flops.py', FINETUNE, '--shape', '64'],
    'confusion': [
        'analysis_tools/confusion_matrix.py',
        FINETUNE,
        CHECKPOINT,
        '--out',
        'work/matrix.pkl',
        *OPTIONS,
    ],
    'results': [
        'analysis_tools/analyze_results.py',
        FINETUNE,
        'work/predictions.pkl',
        '--out-dir',
        'analyzed',
        *OPTIONS,
    ],
    'metric': [
        'analysis_tools/eval_metric.py',
        'work/predictions.pkl',
        '--metric',
        'type=Accuracy',
        'topk=1',
    ],
}


def write_images() -> None:
    """Writes three classes of 8 and 4 images."""
    random = np.random.default_rng(0)
    for part, number in (('train', 8), ('val', 4)):
        for i, name in enumerate('abc'):
            folder = Path('data', part, name)
            folder.mkdir(parents=True)
            for k in range(number):
                pixels = random.integers(0, 60, (48, 40, 3)) + 60 * i
                Image.fromarray(pixels.astype(np.uint8)).save(folder / f'{name}{k}.jpg')


def call(tool: str, *arguments: str) -> dict:
    """Runs a tool as a script; returns its output and the last line of its error."""
    output, error = io.StringIO(), ''
    sys.argv = [str(TOOLS / tool), *arguments]
    try:
        with contextlib.redirect_stdout(output), contextlib.redirect_stderr(output):
            runpy.run_path(sys.argv[0], run_name='__main__')
    except SystemExit as end:
        error = f'exit {end.code}' if end.code else ''
    except BaseException as failure:
        error = ''.join(traceback.format_exception(failure))
    return dict(output=output.getvalue(), error=error)


def main() -> None:
    os.environ['MPLBACKEND'] = 'Agg'
    os.chdir(sys.argv[1])
    write_images()
    pipeline = "pipeline=[dict(type='LoadImageFromFile')]"
    verify = f"_base_ = '{FINETUNE}'\ntrain_dataloader = dict(dataset=dict({pipeline}))\n"
    Path('verify.py').write_text(verify)
    results = {}
    for name, command in COMMANDS.items():
        if name == 'verify':
            Path('data/train/a/broken.jpg').write_bytes(b'no image')
        results[name] = call(*command)
    Path('results.json').write_text(json.dumps(results))


if __name__ == '__main__':
    main()
