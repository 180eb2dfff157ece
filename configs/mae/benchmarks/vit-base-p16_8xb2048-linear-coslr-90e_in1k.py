"""Linear probe of ViT-B/16 on ImageNet-1k, 90 epochs.

python -m torch.distributed.run --nproc-per-node 8 tools/train.py \
    configs/mae/benchmarks/vit-base-p16_8xb2048-linear-coslr-90e_in1k.py --launcher pytorch \
    --pretrained PATH

Published top-1 (mmpretrain's model zoo), by length of pre-training:
60.8 % (300 epochs), 62.5 % (400), 65.1 % (800), 67.1 % (1600).
"""

_base_ = '../_base_/linear_in1k.py'
