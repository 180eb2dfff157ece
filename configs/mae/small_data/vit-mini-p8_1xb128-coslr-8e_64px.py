"""Fine-tunes the tiny ViT at 64 px on class folders, in some minutes on two CPU cores.

python tools/train.py configs/mae/small_data/vit-mini-p8_1xb128-coslr-8e_64px.py \
    --data-root FOLDER --pretrained work_dirs/mae_vit-mini-p8_1xb128-coslr-20e_64px/epoch_20.pth

FOLDER is the folder of pre-training. For another number of classes than 10 add
    --cfg-options model.head.num_classes=N data_preprocessor.num_classes=N
Results: docs/results.md
"""

_base_ = './vit-small-p8_1xb256-coslr-100e_112px.py'

model = dict(
    # No mixup and cutmix: crops and flips suffice for a small model and few epochs.
    train_cfg=None,
    backbone=dict(
        arch=dict(embed_dims=128, num_layers=4, num_heads=4, feedforward_channels=512),
        img_size=64,
        drop_path_rate=0.0,
    ),
    head=dict(in_channels=128),
)
crop = dict(type='LoadRandomCrop', scale=64, crop_ratio_range=(0.35, 1.0))
pack = dict(type='PackInputs')
train_dataloader = dict(batch_size=128, num_workers=1, dataset=dict(pipeline=[crop, pack]))
center = dict(type='LoadCenterCrop', scale=64, crop_ratio=1)
test_dataloader = dict(num_workers=1, dataset=dict(pipeline=[center, pack]))
val_dataloader = test_dataloader
optim_wrapper = dict(optimizer=dict(lr=2e-3))
param_scheduler = dict(warmup=1)
auto_scale_lr = dict(base_batch_size=128)
train_cfg = dict(max_epochs=8, val_interval=4)
del crop, center, pack
