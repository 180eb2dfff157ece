"""Pre-trains ViT-S/8 at 112 px on ten thousand images, on one GPU, with probes of its features.

python tools/train.py configs/mae/small_data/mae_vit-small-p8_1xb512-coslr-800e_112px.py \
    --data-root FOLDER

FOLDER/train and FOLDER/val hold class folders, or tar files of them. Not run yet, for lack of a
GPU: docs/results.md
"""

_base_ = ['../_base_/mae_vit-base-p16.py', '../_base_/pretrain_in1k.py']

model = dict(
    backbone=dict(
        arch=dict(
            _delete_=True, embed_dims=384, num_layers=12, num_heads=6, feedforward_channels=1536
        ),
        img_size=112,
        patch_size=8,
    ),
    neck=dict(decoder_embed_dim=256, decoder_depth=4, decoder_num_heads=8),
)
train_dataloader = dict(
    dataset=dict(
        pipeline=[
            dict(type='LoadRandomCrop', scale=112, crop_ratio_range=(0.2, 1.0)),
            dict(type='PackInputs'),
        ]
    )
)
# The images are 112 px, so they are not cropped.
pipeline = [dict(type='LoadCenterCrop', scale=112, crop_ratio=1), dict(type='PackInputs')]
test_dataloader = dict(dataset=dict(pipeline=pipeline))
train_cfg = dict(max_epochs=800, val_interval=50)

# Nearest neighbors and a linear classifier on frozen features, with the training images as bank.
val_dataloader = dict(
    batch_size=256,
    num_workers=8,
    dataset=dict(
        type='IndexedImages',
        data_root='data/imagenet',
        data_prefix='val',
        with_label=True,
        pipeline=pipeline,
    ),
)
val_cfg = dict(type='ProbeLoop', bank=dict(data_prefix='train'))
val_evaluator = []
default_hooks = dict(logger=dict(interval=10))
del pipeline
