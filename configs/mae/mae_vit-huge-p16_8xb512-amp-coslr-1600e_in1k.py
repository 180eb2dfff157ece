"""MAE pre-training of ViT-H/14 on ImageNet-1k, 1600 epochs.

python -m torch.distributed.run --nproc-per-node 8 tools/train.py \
    configs/mae/mae_vit-huge-p16_8xb512-amp-coslr-1600e_in1k.py --launcher pytorch

The patch size is 14, despite the published name.
Published top-1 (mmpretrain's model zoo): 86.9 % after fine-tuning, 87.3 % at 448 px.
"""

_base_ = ['_base_/mae_vit-base-p16.py', '_base_/pretrain_in1k.py']

model = dict(backbone=dict(arch='h', patch_size=14))
train_cfg = dict(max_epochs=1600)
