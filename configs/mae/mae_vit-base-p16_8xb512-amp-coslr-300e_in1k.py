"""MAE pre-training of ViT-B/16 on ImageNet-1k, 300 epochs.

python -m torch.distributed.run --nproc-per-node 8 tools/train.py \
    configs/mae/mae_vit-base-p16_8xb512-amp-coslr-300e_in1k.py --launcher pytorch

Published top-1 (mmpretrain's model zoo): 83.1 % after fine-tuning, 60.8 % after the linear probe.
"""

_base_ = ['_base_/mae_vit-base-p16.py', '_base_/pretrain_in1k.py']

train_cfg = dict(max_epochs=300)
