"""The official fine-tuning recipe (paper, table 9, and the authors' code).

The values are those of ViT-B/16. Larger models change architecture, epochs, learning rate, layer
decay and drop path.
"""

_base_ = './imagenet_cls.py'

# Images are BGR until the preprocessor converts them to RGB, so fill values are BGR too.
bgr_mean = _base_.data_preprocessor.mean[::-1]
crop, pack = _base_.train_dataloader.dataset.pipeline
augment = dict(
    type='RandAugment',
    num_policies=2,
    magnitude_level=9,
    magnitude_std=0.5,
    total_level=10,
    policies='timm_increasing',
    hparams=dict(interpolation='bicubic', pad_val=[round(value) for value in bgr_mean]),
)
erase = dict(
    type='RandomErasing',
    mode='rand',
    erase_prob=0.25,
    fill_color=bgr_mean,
    fill_std=_base_.data_preprocessor.std[::-1],
    min_area_ratio=0.02,
    max_area_ratio=1 / 3,
)
train_dataloader = dict(dataset=dict(pipeline=[crop, augment, erase, pack]))

# Patch tokens are mean-pooled. A LayerNorm after the pooling replaces the one before it.
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
        # Configs of published models set the checkpoint. Others need --pretrained PATH.
        init_cfg=dict(type='Pretrained', prefix='backbone.', checkpoint=''),
    ),
    head=dict(
        type='LinearClsHead',
        in_channels=768,
        num_classes=1000,
        loss=dict(type='LabelSmoothLoss', label_smooth_val=0.1, mode='original'),
        init_cfg=dict(type='TruncNormal', layer='Linear', std=2e-5),
    ),
)

# lr is for a total batch size of 1024. The final 1e-6 is a ratio of lr, scaled by layer decay too.
optim_wrapper = dict(
    type='AutoAmpOptimWrapper',
    optimizer=dict(
        type='AdamW', lr=5e-4 * 1024 / 256, betas=(0.9, 0.999), weight_decay=0.05, fused=True
    ),
    constructor='MergedLayerDecayConstructor',
    paramwise_cfg=dict(
        layer_decay_rate=0.65,
        flat_decay_mult=0.0,
        custom_keys={'.cls_token': dict(decay_mult=0.0), '.pos_embed': dict(decay_mult=0.0)},
    ),
)
param_scheduler = dict(
    type='WarmupCosineLR', warmup=5, eta_min_ratio=1e-6 / 2e-3, convert_to_iter_based=True
)
auto_scale_lr = dict(enable=True, base_batch_size=1024)
train_cfg = dict(max_epochs=100, val_interval=1)

# Remaining names would appear in the config as settings without effect.
del bgr_mean, crop, augment, erase, pack
