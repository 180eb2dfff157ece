"""Trains ViT-S/8 at 112 px on class folders from random weights: what fine-tuning is to be compared
with.

python tools/train.py configs/mae/small_data/vit-small-p8_1xb256-scratch-300e_112px.py --data-root
FOLDER

The same data and augmentation as in fine-tuning. Not run yet for want of a GPU: docs/results.md
"""

_base_ = './vit-small-p8_1xb256-coslr-100e_112px.py'

model = dict(backbone=dict(init_cfg=None))
# All layers learn alike, and with a longer warm-up.
optim_wrapper = dict(paramwise_cfg=dict(layer_decay_rate=1.0))
param_scheduler = dict(warmup=20)
train_cfg = dict(max_epochs=300)
