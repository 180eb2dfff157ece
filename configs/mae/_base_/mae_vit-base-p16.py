"""MAE with ViT-B/16. Larger models change only the architecture and the patch size."""

model = dict(
    type='MAE',
    data_preprocessor=dict(
        type='SelfSupDataPreprocessor',
        mean=[123.675, 116.28, 103.53],
        std=[58.395, 57.12, 57.375],
        to_rgb=True,
        non_blocking=True,
    ),
    backbone=dict(type='MAEViT', arch='b', patch_size=16, mask_ratio=0.75),
    neck=dict(
        type='MAEPretrainDecoder', decoder_embed_dim=512, decoder_depth=8, decoder_num_heads=16
    ),
    head=dict(
        type='MAEPretrainHead',
        norm_pix=True,
        loss=dict(type='PixelReconstructionLoss', criterion='L2'),
    ),
)
