"""The official pre-training recipe (paper, table 8, and the authors' code) on unlabeled images.

Reads any folder tree of images, or tar files, in ``<data_root>/train``. Labels are ignored.
"""

_base_ = './imagenet_data.py'

train_dataloader = dict(
    batch_size=512,
    dataset=dict(
        type='IndexedImages',
        data_prefix='train',
        pipeline=[
            dict(type='LoadRandomCrop', scale=224, crop_ratio_range=(0.2, 1.0)),
            dict(type='PackInputs'),
        ],
    ),
)

# Used to extract features and to reconstruct. Pre-training itself has no evaluation.
test_dataloader = dict(dataset=dict(type='IndexedImages', data_prefix='val'))
test_evaluator = []
test_cfg = dict()

# lr 1.5e-4 per 256 images of the total batch size. 1-D parameters and biases have no weight decay.
optim_wrapper = dict(
    type='AutoAmpOptimWrapper',
    optimizer=dict(
        type='AdamW', lr=1.5e-4 * 4096 / 256, betas=(0.9, 0.95), weight_decay=0.05, fused=True
    ),
    constructor='MergedOptimWrapperConstructor',
    paramwise_cfg=dict(flat_decay_mult=0.0),
)
param_scheduler = dict(type='WarmupCosineLR', warmup=40, convert_to_iter_based=True)
auto_scale_lr = dict(enable=True, base_batch_size=4096)

# Draws a few test images (training images, if there are none) under fixed masks, into
# vis_data/vis_image of the work dir.
default_hooks = dict(reconstruction=dict(type='ReconstructionHook', interval=20))
