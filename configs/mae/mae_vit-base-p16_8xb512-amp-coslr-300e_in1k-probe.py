"""MAE pre-training of ViT-B/16, 300 epochs, with a probe every 20 that selects the best checkpoint.

tools/dist_train.sh configs/mae/mae_vit-base-p16_8xb512-amp-coslr-300e_in1k-probe.py 8
python tools/train.py configs/mae/mae_vit-base-p16_8xb512-amp-coslr-300e_in1k-probe.py    # one GPU

The probe classifies ImageNet's validation images by 100,000 of the training images. Any other
dataset with labels works too.
"""

_base_ = 'mae_vit-base-p16_8xb512-amp-coslr-300e_in1k.py'

val_dataloader = dict(
    batch_size=128,
    num_workers=8,
    dataset=dict(
        type='ImageNet',
        data_root='data/imagenet',
        split='val',
        pipeline=_base_.test_dataloader.dataset.pipeline,
    ),
)
val_cfg = dict(type='ProbeLoop', bank=dict(split='train'), bank_size=100_000)
val_evaluator = []
train_cfg = dict(val_interval=20)
default_hooks = dict(checkpoint=dict(save_best='probe/knn_top1'))
