"""Fine-tuning of ViT-L/16 pre-trained for 800 epochs.

python -m torch.distributed.run --nproc-per-node 8 tools/train.py \
    configs/mae/benchmarks/vit-large-p16_mae-800e-pre_8xb128-coslr-50e_in1k.py --launcher pytorch

Starts from the released weights, or from --pretrained PATH. Published result: 85.4 % top-1.
"""

_base_ = 'vit-large-p16_8xb128-coslr-50e_in1k.py'

# Weights of mae_vit-large-p16_8xb512-amp-coslr-800e_in1k.
model = dict(
    backbone=dict(
        init_cfg=dict(
            checkpoint='https://download.openmmlab.com/mmselfsup/1.x/mae/'
            'mae_vit-large-p16_8xb512-fp16-coslr-800e_in1k/'
            'mae_vit-large-p16_8xb512-fp16-coslr-800e_in1k_20220825-df72726a.pth'
        )
    )
)
