"""The official pre-training recipe (paper, table 8, and the authors' code) on unlabelled images.

Any folder tree of images, or tar files, in ``<data_root>/train`` will do; labels are not looked at.
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

# For extracting features and reconstructing; pre-training itself has nothing to evaluate.
test_dataloader = dict(dataset=dict(type='IndexedImages', data_prefix='val'))
test_evaluator = []
test_cfg = dict()

# lr 1.5e-4 for 256 images a step, weight decay on all that is neither 1-D nor a bias.
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

# A few test images (training images, if there are none) under fixed masks, in the work dir's
# vis_data/vis_image.
default_hooks = dict(reconstruction=dict(type='ReconstructionHook', interval=20))
