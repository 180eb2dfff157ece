"""A small MAE on tiles of 13 bands, 120 x 120 pixels of 16 bits. 0 in all bands means no data.

python tools/make_examples.py bands data/bands    # or your own in FOLDER/train
python tools/train.py configs/mae/mae_vit-mini-p12_bands-120px.py --data-root data/bands
"""

_base_ = './_base_/pretrain_mini.py'

model = dict(
    data_preprocessor=dict(
        _delete_=True,
        type='BandDataPreprocessor',
        # Measured by tools/channel_stats.py.
        mean=[1301, 1194, 1161, 1083, 1285, 1832, 2078, 2085, 2193, 745, 36, 1716, 1277],
        std=[423, 515, 601, 800, 818, 977, 1139, 1157, 1240, 411, 29, 1134, 1030],
        nodata=0,
        non_blocking=True,
    ),
    backbone=dict(img_size=120, patch_size=12, in_channels=13),
)
bands = dict(scale=120, color_type='unchanged', nodata=0)
crop = dict(type='LoadRandomCrop', crop_ratio_range=(0.5, 1.0), **bands)
train_dataloader = dict(dataset=dict(pipeline=[crop, dict(type='PackInputs')]))
center = dict(type='LoadCenterCrop', crop_ratio=1, **bands)
test_dataloader = dict(dataset=dict(pipeline=[center, dict(type='PackInputs')]))
del bands, crop, center
