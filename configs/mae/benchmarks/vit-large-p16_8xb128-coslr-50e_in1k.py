"""Fine-tuning of ViT-L/16 on ImageNet-1k, 50 epochs.

python -m torch.distributed.run --nproc-per-node 8 tools/train.py \
    configs/mae/benchmarks/vit-large-p16_8xb128-coslr-50e_in1k.py --launcher pytorch \
    --pretrained PATH

Published top-1 (mmpretrain's model zoo), by length of pre-training:
85.2 % (400 epochs), 85.4 % (800), 85.7 % (1600).
"""

_base_ = '../_base_/finetune_in1k.py'

model = dict(backbone=dict(arch='large', drop_path_rate=0.2), head=dict(in_channels=1024))
optim_wrapper = dict(
    optimizer=dict(lr=1e-3 * 1024 / 256), paramwise_cfg=dict(layer_decay_rate=0.75)
)
param_scheduler = dict(eta_min_ratio=1e-6 / 4e-3)
train_cfg = dict(max_epochs=50)
