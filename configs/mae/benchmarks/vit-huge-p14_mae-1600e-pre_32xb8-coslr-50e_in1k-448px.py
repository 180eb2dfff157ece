"""Fine-tuning at 448 px of ViT-H/14 pre-trained for 1600 epochs.

python -m torch.distributed.run --nnodes 4 --nproc-per-node 8 --rdzv-backend c10d \
    --rdzv-endpoint HOST:PORT tools/train.py \
    configs/mae/benchmarks/vit-huge-p14_mae-1600e-pre_32xb8-coslr-50e_in1k-448px.py \
    --launcher pytorch

Starts from the released weights, or from --pretrained PATH. Published result: 87.3 % top-1.
"""

_base_ = 'vit-huge-p14_32xb8-coslr-50e_in1k-448px.py'

# Weights of mae_vit-huge-p16_8xb512-amp-coslr-1600e_in1k.
model = dict(
    backbone=dict(
        init_cfg=dict(
            checkpoint='https://download.openmmlab.com/mmselfsup/1.x/mae/'
            'mae_vit-huge-p16_8xb512-fp16-coslr-1600e_in1k/'
            'mae_vit-huge-p16_8xb512-fp16-coslr-1600e_in1k_20220916-ff848775.pth'
        )
    )
)
