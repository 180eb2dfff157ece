"""Linear probe of ViT-L/16 on ImageNet-1k, 90 epochs.

python -m torch.distributed.run --nproc-per-node 8 tools/train.py \
    configs/mae/benchmarks/vit-large-p16_8xb2048-linear-coslr-90e_in1k.py --launcher pytorch \
    --pretrained PATH

Published top-1 (mmpretrain's model zoo), by length of pre-training:
70.7 % (400 epochs), 73.7 % (800), 75.5 % (1600).
"""

_base_ = '../_base_/linear_in1k.py'

model = dict(
    backbone=dict(arch='large', frozen_stages=24),
    neck=dict(input_features=1024),
    head=dict(in_channels=1024),
)
