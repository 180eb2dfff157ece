"""Data loaders and evaluation pipeline (resize 256, crop 224) of all ImageNet recipes."""

_base_ = './default_runtime.py'

train_dataloader = dict(
    num_workers=8,
    persistent_workers=True,
    drop_last=True,
    sampler=dict(type='DefaultSampler', shuffle=True),
    collate_fn=dict(type='default_collate'),
    dataset=dict(data_root='data/imagenet'),
)
test_dataloader = dict(
    batch_size=128,
    num_workers=8,
    persistent_workers=True,
    sampler=dict(type='DefaultSampler', shuffle=False),
    collate_fn=dict(type='default_collate'),
    dataset=dict(
        data_root='data/imagenet',
        pipeline=[dict(type='LoadCenterCrop', scale=224), dict(type='PackInputs')],
    ),
)
