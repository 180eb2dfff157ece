"""MAE pre-training of ViT-B/16 on ImageNet-1k, 800 epochs.

python -m torch.distributed.run --nproc-per-node 8 tools/train.py \
    configs/mae/mae_vit-base-p16_8xb512-amp-coslr-800e_in1k.py --launcher pytorch

Published top-1 (mmpretrain's model zoo): 83.3 % after fine-tuning, 65.1 % after the linear probe.
"""

_base_ = ['_base_/mae_vit-base-p16.py', '_base_/pretrain_in1k.py']

train_cfg = dict(max_epochs=800)
