"""Fine-tunes the small encoder for 13 bands. Folders are the classes.

python tools/train.py configs/mae/benchmarks/vit-mini-p12_bands-120px.py --data-root data/bands \
    --pretrained work_dirs/mae_vit-mini-p12_bands-120px/epoch_20.pth
"""

_base_ = '../_base_/finetune_mini.py'

data_preprocessor = dict(
    type='BandDataPreprocessor',
    num_classes=4,
    mean=[1301, 1194, 1161, 1083, 1285, 1832, 2078, 2085, 2193, 745, 36, 1716, 1277],
    std=[423, 515, 601, 800, 818, 977, 1139, 1157, 1240, 411, 29, 1134, 1030],
    nodata=0,
)
model = dict(backbone=dict(img_size=120, patch_size=12, in_channels=13))
train_dataloader = dict(
    dataset=dict(
        pipeline=[
            dict(
                type='LoadRandomCrop',
                scale=120,
                crop_ratio_range=(0.5, 1.0),
                color_type='unchanged',
                nodata=0,
            ),
            dict(type='PackInputs'),
        ]
    )
)
center = dict(type='LoadCenterCrop', scale=120, crop_ratio=1, color_type='unchanged', nodata=0)
test_dataloader = dict(dataset=dict(pipeline=[center, dict(type='PackInputs')]))
val_dataloader = test_dataloader
del center
