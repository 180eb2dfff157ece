"""Trains the tiny ViT at 64 px from random weights on class folders, the baseline of fine-tuning.

python tools/train.py configs/mae/small_data/vit-mini-p8_1xb128-scratch-18e_64px.py \
    --data-root FOLDER

Data and augmentation are those of fine-tuning, and compute equals that of pre-training plus
fine-tuning. Results: docs/results.md
"""

_base_ = './vit-mini-p8_1xb128-coslr-8e_64px.py'

model = dict(backbone=dict(init_cfg=None))
# All layers have the same learning rate, and the warm-up is longer.
optim_wrapper = dict(paramwise_cfg=dict(layer_decay_rate=1.0))
param_scheduler = dict(warmup=3)
train_cfg = dict(max_epochs=18, val_interval=6)
