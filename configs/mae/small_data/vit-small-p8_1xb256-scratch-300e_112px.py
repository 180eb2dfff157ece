"""Trains ViT-S/8 at 112 px from random weights on class folders, the baseline of fine-tuning.

python tools/train.py configs/mae/small_data/vit-small-p8_1xb256-scratch-300e_112px.py \
    --data-root FOLDER

Data and augmentation are those of fine-tuning. Not run yet, for lack of a GPU: docs/results.md
"""

_base_ = './vit-small-p8_1xb256-coslr-100e_112px.py'

model = dict(backbone=dict(init_cfg=None))
# All layers have the same learning rate, and the warm-up is longer.
optim_wrapper = dict(paramwise_cfg=dict(layer_decay_rate=1.0))
param_scheduler = dict(warmup=20)
train_cfg = dict(max_epochs=300)
