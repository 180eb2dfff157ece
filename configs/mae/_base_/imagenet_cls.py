"""ImageNet with 1,000 classes for fine-tuning and probing: data, evaluation, basic augmentation."""

_base_ = './imagenet_data.py'

data_preprocessor = dict(
    num_classes=1000, mean=[123.675, 116.28, 103.53], std=[58.395, 57.12, 57.375], to_rgb=True
)

train_dataloader = dict(
    batch_size=128,
    dataset=dict(
        type='ImageNet',
        split='train',
        pipeline=[dict(type='LoadRandomCrop', scale=224), dict(type='PackInputs')],
    ),
)
test_dataloader = _base_.test_dataloader
test_dataloader.dataset.update(type='ImageNet', split='val')
test_evaluator = dict(type='Accuracy', topk=(1, 5))
test_cfg = dict()

val_dataloader = test_dataloader
val_evaluator = test_evaluator
val_cfg = dict()
