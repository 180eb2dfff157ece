"""Fine-tunes the small encoder for rectangles. Folders are the classes.

python tools/train.py configs/mae/benchmarks/vit-mini-p16_sonograms-512x128.py \
    --data-root data/sonograms \
    --pretrained work_dirs/mae_vit-mini-p16_sonograms-512x128/epoch_20.pth
"""

_base_ = '../_base_/finetune_mini.py'

data_preprocessor = dict(type='BandDataPreprocessor', num_classes=4, mean=[-21.4], std=[5.4])
model = dict(backbone=dict(img_size=(512, 128), patch_size=16, in_channels=1))
train_dataloader = dict(
    dataset=dict(
        pipeline=[
            dict(
                type='LoadRandomCrop',
                scale=(512, 128),
                crop_ratio_range=(0.5, 1.0),
                aspect_ratio_range=(0.2, 0.3),
                flip_prob=0,
                color_type='unchanged',
            ),
            dict(type='PackInputs'),
        ]
    )
)
center = dict(type='LoadCenterCrop', scale=(512, 128), crop_ratio=1, color_type='unchanged')
test_dataloader = dict(dataset=dict(pipeline=[center, dict(type='PackInputs')]))
val_dataloader = test_dataloader
del center
