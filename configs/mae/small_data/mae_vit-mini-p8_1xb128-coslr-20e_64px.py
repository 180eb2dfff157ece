"""Pre-trains a tiny ViT at 64 px on ten thousand images, in under ten minutes on two CPU cores.

python tools/train.py configs/mae/small_data/mae_vit-mini-p8_1xb128-coslr-20e_64px.py \
    --data-root FOLDER

FOLDER/train and FOLDER/val hold class folders, or tar files of them. Results: docs/results.md
"""

_base_ = './mae_vit-small-p8_1xb512-coslr-800e_112px.py'

model = dict(
    backbone=dict(
        arch=dict(embed_dims=128, num_layers=4, num_heads=4, feedforward_channels=512), img_size=64
    ),
    neck=dict(decoder_embed_dim=64, decoder_depth=2, decoder_num_heads=2),
)
crop, pack = _base_.train_dataloader.dataset.pipeline
crop.scale = 64
train_dataloader = dict(batch_size=128, num_workers=1, dataset=dict(pipeline=[crop, pack]))
center, pack = _base_.test_dataloader.dataset.pipeline
center.scale = 64
test_dataloader = dict(num_workers=1, dataset=dict(pipeline=[center, pack]))
val_dataloader = test_dataloader
optim_wrapper = dict(optimizer=dict(lr=2e-3))
param_scheduler = dict(warmup=2)
auto_scale_lr = dict(base_batch_size=128)
train_cfg = dict(max_epochs=20, val_interval=10)
default_hooks = dict(
    reconstruction=dict(interval=5), checkpoint=dict(interval=5, max_keep_ckpts=-1)
)
del crop, center, pack
