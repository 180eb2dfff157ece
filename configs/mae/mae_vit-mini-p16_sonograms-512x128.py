"""A small MAE on rectangles: sonograms of 512 times and 128 pitches, float32, without flips.

python tools/make_examples.py sonograms data/sonograms    # or your own in FOLDER/train
python tools/train.py configs/mae/mae_vit-mini-p16_sonograms-512x128.py \
    --data-root data/sonograms
"""

_base_ = './_base_/pretrain_mini.py'

model = dict(
    data_preprocessor=dict(
        _delete_=True,
        type='BandDataPreprocessor',
        mean=[-21.4],
        std=[5.4],
        non_blocking=True,
    ),
    backbone=dict(img_size=(512, 128), patch_size=16, in_channels=1),
)
crop = dict(
    type='LoadRandomCrop',
    scale=(512, 128),
    crop_ratio_range=(0.5, 1.0),
    aspect_ratio_range=(0.2, 0.3),
    flip_prob=0,
    color_type='unchanged',
)
train_dataloader = dict(dataset=dict(pipeline=[crop, dict(type='PackInputs')]))
center = dict(type='LoadCenterCrop', scale=(512, 128), crop_ratio=1, color_type='unchanged')
test_dataloader = dict(dataset=dict(pipeline=[center, dict(type='PackInputs')]))
del crop, center
