"""Fine-tuning of a pre-trained ViT-B/16 on ImageNet-1k, 100 epochs.

python -m torch.distributed.run --nproc-per-node 8 tools/train.py \
    configs/mae/benchmarks/vit-base-p16_8xb128-coslr-100e_in1k.py --launcher pytorch \
    --cfg-options model.backbone.init_cfg.checkpoint=PRETRAINED.pth

Published result: 83.1 % top-1 from the 300-epoch pre-training whose released weights stand below.
"""

_base_ = '../_base_/finetune_in1k.py'

model = dict(
    backbone=dict(
        init_cfg=dict(
            type='Pretrained',
            prefix='backbone.',
            checkpoint='https://download.openmmlab.com/mmselfsup/1.x/mae/mae_vit-base-p16_8xb512-fp16-coslr-300e_in1k/'
            'mae_vit-base-p16_8xb512-coslr-300e-fp16_in1k_20220829-c2cf66ba.pth',
        )
    )
)
