"""A small MAE that reconstructs 64-px images after minutes on two CPU cores, run by `make demo`.

python tools/train.py configs/mae/mae_vit-mini-p8_demo-64px.py --data-root FOLDER

FOLDER/train holds the images. The targets are raw pixels, so that reconstructions can be viewed and
measured directly. The learning rate depends on the elapsed time, not the step: a faster machine
takes more steps in the same time.
"""

_base_ = ['_base_/mae_vit-base-p16.py', '_base_/pretrain_in1k.py']

model = dict(
    backbone=dict(
        arch=dict(
            _delete_=True, embed_dims=128, num_layers=4, num_heads=4, feedforward_channels=512
        ),
        img_size=64,
        patch_size=8,
    ),
    neck=dict(decoder_embed_dim=64, decoder_depth=2, decoder_num_heads=2),
    head=dict(norm_pix=False),
)
train_dataloader = dict(
    batch_size=64,
    num_workers=1,
    # Infinite, because mmengine's iteration loop sleeps for two seconds at the end of a sampler.
    sampler=dict(type='InfiniteSampler'),
    dataset=dict(
        pipeline=[
            dict(type='LoadRandomCrop', scale=64, crop_ratio_range=(0.8, 1.0)),
            dict(type='PackInputs'),
        ]
    ),
)
test_dataloader = dict(
    dataset=dict(
        pipeline=[
            dict(type='LoadCenterCrop', scale=64, crop_ratio=1),
            dict(type='PackInputs'),
        ]
    )
)
optim_wrapper = dict(optimizer=dict(lr=3e-3))
param_scheduler = None
auto_scale_lr = dict(enable=False)
custom_hooks = [dict(type='TimeLimitHook', minutes=5)]
train_cfg = dict(type='ResumableIterLoop', max_iters=1_000_000)
default_hooks = dict(
    logger=dict(interval=5),
    checkpoint=dict(interval=1_000_000, by_epoch=False, max_keep_ckpts=1),
    reconstruction=dict(interval=300, by_epoch=False),
)
log_processor = dict(by_epoch=False)
