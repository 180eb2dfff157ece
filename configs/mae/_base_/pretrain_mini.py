"""A small MAE for the examples of unusual images, with epochs of minutes on two CPU cores.

The targets are raw pixels, so that reconstructions are images without further processing.
"""

_base_ = ['./mae_vit-base-p16.py', './pretrain_in1k.py']

extensions = ('.tif', '.tiff', '.npy', '.png', '.jpg', '.jpeg')

model = dict(
    backbone=dict(
        arch=dict(
            _delete_=True, embed_dims=128, num_layers=4, num_heads=4, feedforward_channels=512
        )
    ),
    neck=dict(decoder_embed_dim=64, decoder_depth=2, decoder_num_heads=2),
    head=dict(norm_pix=False),
)
train_dataloader = dict(batch_size=32, num_workers=2, dataset=dict(extensions=extensions))
test_dataloader = dict(batch_size=32, num_workers=2, dataset=dict(extensions=extensions))
optim_wrapper = dict(optimizer=dict(lr=1e-3))
param_scheduler = dict(warmup=2)
auto_scale_lr = dict(enable=False)
default_hooks = dict(logger=dict(interval=10))
train_cfg = dict(max_epochs=20)
del extensions
