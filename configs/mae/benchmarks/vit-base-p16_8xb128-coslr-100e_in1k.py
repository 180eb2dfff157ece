"""Fine-tuning of ViT-B/16 on ImageNet-1k, 100 epochs.

python -m torch.distributed.run --nproc-per-node 8 tools/train.py \
    configs/mae/benchmarks/vit-base-p16_8xb128-coslr-100e_in1k.py --launcher pytorch \
    --pretrained PATH

Published top-1 (mmpretrain's model zoo), by length of pre-training:
83.1 % (300 epochs), 83.3 % (400), 83.3 % (800), 83.5 % (1600).
"""

_base_ = '../_base_/finetune_in1k.py'
