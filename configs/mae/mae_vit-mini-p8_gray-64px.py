"""A small MAE on images of one channel.

python tools/make_examples.py gray data/gray    # or any images in FOLDER/train
python tools/train.py configs/mae/mae_vit-mini-p8_gray-64px.py --data-root data/gray
"""

_base_ = './_base_/pretrain_mini.py'

model = dict(
    data_preprocessor=dict(
        _delete_=True,
        type='BandDataPreprocessor',
        mean=[157],
        std=[38],
        non_blocking=True,
    ),
    backbone=dict(img_size=64, patch_size=8, in_channels=1),
)
crop = dict(type='LoadRandomCrop', scale=64, crop_ratio_range=(0.5, 1.0), color_type='grayscale')
train_dataloader = dict(dataset=dict(pipeline=[crop, dict(type='PackInputs')]))
center = dict(type='LoadCenterCrop', scale=64, crop_ratio=1, color_type='grayscale')
test_dataloader = dict(dataset=dict(pipeline=[center, dict(type='PackInputs')]))
del crop, center
