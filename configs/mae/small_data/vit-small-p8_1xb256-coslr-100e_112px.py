"""Fine-tunes ViT-S/8 at 112 px on class folders, on one GPU.

python tools/train.py configs/mae/small_data/vit-small-p8_1xb256-coslr-100e_112px.py \
    --data-root FOLDER \
    --pretrained work_dirs/mae_vit-small-p8_1xb512-coslr-800e_112px/epoch_800.pth

FOLDER is the folder of pre-training. For another number of classes than 10 add
    --cfg-options model.head.num_classes=N data_preprocessor.num_classes=N
Not run yet, for lack of a GPU: docs/results.md
"""

_base_ = '../_base_/finetune_in1k.py'

data_preprocessor = dict(num_classes=10)
model = dict(
    backbone=dict(
        arch=dict(
            _delete_=True, embed_dims=384, num_layers=12, num_heads=6, feedforward_channels=1536
        ),
        img_size=112,
        patch_size=8,
    ),
    head=dict(in_channels=384, num_classes=10, topk=(1,)),
)
images = dict(_delete_=True, type='IndexedImages', data_root='data/imagenet', with_label=True)
pipeline = _base_.train_dataloader.dataset.pipeline
pipeline[0].scale = 112
train_dataloader = dict(
    batch_size=256, dataset=dict(**images, data_prefix='train', pipeline=pipeline)
)
# The images are 112 px, so they are not cropped.
pipeline = [dict(type='LoadCenterCrop', scale=112, crop_ratio=1), dict(type='PackInputs')]
test_dataloader = dict(batch_size=256, dataset=dict(**images, data_prefix='val', pipeline=pipeline))
val_dataloader = test_dataloader
test_evaluator = dict(topk=(1,))
val_evaluator = test_evaluator

optim_wrapper = dict(paramwise_cfg=dict(layer_decay_rate=0.75))
train_cfg = dict(val_interval=10)
del images, pipeline
