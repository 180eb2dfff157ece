"""Fine-tuning of the small encoder of the examples. Folders are the classes."""

_base_ = './imagenet_data.py'

extensions = ('.tif', '.tiff', '.npy', '.png', '.jpg', '.jpeg')

model = dict(
    type='ImageClassifier',
    backbone=dict(
        type='VisionTransformer',
        arch=dict(embed_dims=128, num_layers=4, num_heads=4, feedforward_channels=512),
        final_norm=False,
        out_type='avg_featmap',
        # Set by --pretrained PATH.
        init_cfg=dict(type='Pretrained', prefix='backbone.', checkpoint=''),
    ),
    head=dict(
        type='LinearClsHead',
        in_channels=128,
        num_classes=4,
        topk=(1,),
        loss=dict(type='LabelSmoothLoss', label_smooth_val=0.1, mode='original'),
        init_cfg=dict(type='TruncNormal', layer='Linear', std=2e-5),
    ),
)
images = dict(type='IndexedImages', with_label=True, extensions=extensions)
train_dataloader = dict(batch_size=32, num_workers=2, dataset=dict(**images, data_prefix='train'))
test_dataloader = dict(batch_size=32, num_workers=2, dataset=dict(**images, data_prefix='val'))
val_dataloader = dict(_base_.test_dataloader, **test_dataloader)
test_evaluator = dict(type='Accuracy', topk=(1,))
val_evaluator = test_evaluator
val_cfg = dict()
test_cfg = dict()

optim_wrapper = dict(
    type='AutoAmpOptimWrapper',
    optimizer=dict(type='AdamW', lr=1e-3, betas=(0.9, 0.999), weight_decay=0.05, fused=True),
    constructor='MergedLayerDecayConstructor',
    paramwise_cfg=dict(
        layer_decay_rate=0.75,
        flat_decay_mult=0.0,
        custom_keys={'.cls_token': dict(decay_mult=0.0), '.pos_embed': dict(decay_mult=0.0)},
    ),
)
param_scheduler = dict(type='WarmupCosineLR', warmup=2, convert_to_iter_based=True)
default_hooks = dict(logger=dict(interval=10))
train_cfg = dict(max_epochs=10, val_interval=1)
del extensions, images
