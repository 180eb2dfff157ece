"""MAE pre-training of ViT-L/16 on ImageNet-1k, 1600 epochs.

python -m torch.distributed.run --nproc-per-node 8 tools/train.py \
    configs/mae/mae_vit-large-p16_8xb512-amp-coslr-1600e_in1k.py --launcher pytorch

Published top-1 (mmpretrain's model zoo): 85.7 % after fine-tuning, 75.5 % after the linear probe.
"""

_base_ = ['_base_/mae_vit-base-p16.py', '_base_/pretrain_in1k.py']

model = dict(backbone=dict(arch='l'))
train_cfg = dict(max_epochs=1600)
