"""Fine-tunes the small encoder for one channel. Folders are the classes.

python tools/train.py configs/mae/benchmarks/vit-mini-p8_gray-64px.py --data-root data/gray \
    --pretrained work_dirs/mae_vit-mini-p8_gray-64px/epoch_20.pth
"""

_base_ = '../_base_/finetune_mini.py'

data_preprocessor = dict(type='BandDataPreprocessor', num_classes=2, mean=[157], std=[38])
model = dict(
    backbone=dict(img_size=64, patch_size=8, in_channels=1),
    head=dict(num_classes=2),
)
train_dataloader = dict(
    dataset=dict(
        pipeline=[
            dict(
                type='LoadRandomCrop', scale=64, crop_ratio_range=(0.5, 1.0), color_type='grayscale'
            ),
            dict(type='PackInputs'),
        ]
    )
)
center = dict(type='LoadCenterCrop', scale=64, crop_ratio=1, color_type='grayscale')
test_dataloader = dict(dataset=dict(pipeline=[center, dict(type='PackInputs')]))
val_dataloader = test_dataloader
del center
