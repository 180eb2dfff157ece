"""Trains the tiny ViT at 64 px on class folders from random weights: what fine-tuning is to be
compared with.

python tools/train.py configs/mae/small_data/vit-mini-p8_1xb128-scratch-18e_64px.py --data-root
FOLDER

The same data and augmentation as in fine-tuning, and as much computing as pre-training and
fine-tuning together. Results: docs/results.md
"""

_base_ = './vit-mini-p8_1xb128-coslr-8e_64px.py'

model = dict(backbone=dict(init_cfg=None))
# All layers learn alike, and with a longer warm-up.
optim_wrapper = dict(paramwise_cfg=dict(layer_decay_rate=1.0))
param_scheduler = dict(warmup=3)
train_cfg = dict(max_epochs=18, val_interval=6)
