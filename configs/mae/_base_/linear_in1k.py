"""The official linear probe (paper, table 10, and the authors' code), with the values of ViT-B/16.

The encoder is frozen. BatchNorm without affine parameters and a linear classifier follow its class
token.
"""

_base_ = './imagenet_cls.py'

model = dict(
    type='ImageClassifier',
    neck=dict(type='ClsBatchNormNeck', input_features=768),
    backbone=dict(
        type='VisionTransformer',
        arch='base',
        patch_size=16,
        frozen_stages=12,
        out_type='cls_token',
        # Configs of published models set the checkpoint. Others need --pretrained PATH.
        init_cfg=dict(type='Pretrained', prefix='backbone.', checkpoint=''),
    ),
    head=dict(
        type='VisionTransformerClsHead',
        in_channels=768,
        num_classes=1000,
        loss=dict(type='CrossEntropyLoss'),
        init_cfg=dict(type='Normal', layer='Linear', std=0.01),
    ),
)
train_dataloader = dict(batch_size=2048)

# LARS adapts the learning rate of the weight only. The bias, a 1-D parameter, is exempt.
optim_wrapper = dict(
    type='AutoAmpOptimWrapper',
    optimizer=dict(type='LARS', lr=0.1 * 16384 / 256, momentum=0.9, weight_decay=0.0),
    paramwise_cfg=dict(custom_keys={'bias': dict(lars_exclude=True)}),
)
param_scheduler = dict(type='WarmupCosineLR', warmup=10, convert_to_iter_based=True)
auto_scale_lr = dict(enable=True, base_batch_size=16384)
train_cfg = dict(max_epochs=90, val_interval=1)

# As in the authors' code, each GPU normalizes its own part of the batch. Evaluation uses the
# average statistics.
custom_hooks = [dict(type='SyncBuffersHook')]
