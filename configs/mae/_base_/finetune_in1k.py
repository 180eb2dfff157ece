"""The official fine-tuning recipe (paper, table 9, and the authors' code) on ImageNet's 1,000 classes.

Leaves name the architecture and, where the recipe depends on it: epochs, learning rate, layer decay, drop path.
"""

_base_ = './default_runtime.py'

rgb_mean, rgb_std = [123.675, 116.28, 103.53], [58.395, 57.12, 57.375]
data_preprocessor = dict(num_classes=1000, mean=rgb_mean, std=rgb_std, to_rgb=True)

# Pipelines hand on BGR images until the preprocessor turns them round, so fill values are BGR too.
train_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='RandomResizedCrop', scale=224, backend='pillow', interpolation='bicubic'),
    dict(type='RandomFlip', prob=0.5, direction='horizontal'),
    dict(
        type='RandAugment',
        num_policies=2,
        magnitude_level=9,
        magnitude_std=0.5,
        total_level=10,
        policies='timm_increasing',
        hparams=dict(interpolation='bicubic', pad_val=[round(value) for value in rgb_mean[::-1]]),
    ),
    dict(
        type='RandomErasing',
        mode='rand',
        erase_prob=0.25,
        fill_color=rgb_mean[::-1],
        fill_std=rgb_std[::-1],
        min_area_ratio=0.02,
        max_area_ratio=1 / 3,
    ),
    dict(type='PackInputs'),
]
test_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='ResizeEdge', scale=256, edge='short', backend='pillow', interpolation='bicubic'),
    dict(type='CenterCrop', crop_size=224),
    dict(type='PackInputs'),
]

train_dataloader = dict(
    batch_size=128,
    num_workers=8,
    persistent_workers=True,
    drop_last=True,
    sampler=dict(type='DefaultSampler', shuffle=True),
    collate_fn=dict(type='default_collate'),
    dataset=dict(type='ImageNet', data_root='data/imagenet', split='train', pipeline=train_pipeline),
)
val_dataloader = dict(
    batch_size=128,
    num_workers=8,
    persistent_workers=True,
    sampler=dict(type='DefaultSampler', shuffle=False),
    collate_fn=dict(type='default_collate'),
    dataset=dict(type='ImageNet', data_root='data/imagenet', split='val', pipeline=test_pipeline),
)
val_evaluator = dict(type='Accuracy', topk=(1, 5))
test_dataloader = val_dataloader
test_evaluator = val_evaluator

# Mean-pooled patch tokens, a LayerNorm after the pooling in place of the one before it, and a linear classifier.
model = dict(
    type='ImageClassifier',
    train_cfg=dict(augments=[dict(type='Mixup', alpha=0.8), dict(type='CutMix', alpha=1.0)]),
    backbone=dict(
        type='VisionTransformer',
        arch='base',
        patch_size=16,
        final_norm=False,
        out_type='avg_featmap',
        drop_path_rate=0.1,
    ),
    head=dict(
        type='LinearClsHead',
        in_channels=768,
        num_classes=1000,
        loss=dict(type='LabelSmoothLoss', label_smooth_val=0.1, mode='original'),
        init_cfg=dict(type='TruncNormal', layer='Linear', std=2e-5),
    ),
)

# lr is given for 1024 images a step; the floor of 1e-6 is a share of it, so that layer decay scales it too.
optim_wrapper = dict(
    type='AutoAmpOptimWrapper',
    optimizer=dict(type='AdamW', lr=5e-4 * 1024 / 256, betas=(0.9, 0.999), weight_decay=0.05),
    constructor='LearningRateDecayOptimWrapperConstructor',
    paramwise_cfg=dict(
        layer_decay_rate=0.65,
        flat_decay_mult=0.0,
        custom_keys={'.cls_token': dict(decay_mult=0.0), '.pos_embed': dict(decay_mult=0.0)},
    ),
)
param_scheduler = dict(type='WarmupCosineLR', warmup=5, eta_min_ratio=1e-6 / 2e-3, convert_to_iter_based=True)
auto_scale_lr = dict(enable=True, base_batch_size=1024)

train_cfg = dict(by_epoch=True, max_epochs=100, val_interval=1)
val_cfg = dict()
test_cfg = dict()

# Names that only serve the lines above: left in the config, they would look like settings and change nothing.
del rgb_mean, rgb_std, train_pipeline, test_pipeline
