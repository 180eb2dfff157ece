"""Fine-tuning of ViT-B/16 pre-trained for 1600 epochs.

python -m torch.distributed.run --nproc-per-node 8 tools/train.py \
    configs/mae/benchmarks/vit-base-p16_mae-1600e-pre_8xb128-coslr-100e_in1k.py --launcher pytorch

Starts from the released weights, or from --pretrained PATH. Published result: 83.5 % top-1.
"""

_base_ = 'vit-base-p16_8xb128-coslr-100e_in1k.py'

# Weights of mae_vit-base-p16_8xb512-amp-coslr-1600e_in1k.
model = dict(
    backbone=dict(
        init_cfg=dict(
            checkpoint='https://download.openmmlab.com/mmselfsup/1.x/mae/'
            'mae_vit-base-p16_8xb512-fp16-coslr-1600e_in1k/'
            'mae_vit-base-p16_8xb512-fp16-coslr-1600e_in1k_20220825-f7569ca2.pth'
        )
    )
)
