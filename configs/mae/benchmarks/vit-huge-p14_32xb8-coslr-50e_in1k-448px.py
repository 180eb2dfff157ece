"""Fine-tuning of ViT-H/14 at 448 px on ImageNet-1k, 50 epochs.

python -m torch.distributed.run --nnodes 4 --nproc-per-node 8 --rdzv-backend c10d \
    --rdzv-endpoint HOST:PORT tools/train.py \
    configs/mae/benchmarks/vit-huge-p14_32xb8-coslr-50e_in1k-448px.py --launcher pytorch \
    --pretrained PATH

No official recipe exists for this size.
Published top-1 (mmpretrain's model zoo), by length of pre-training:
87.3 % (1600 epochs).
"""

_base_ = './vit-huge-p14_8xb128-coslr-50e_in1k.py'

# As at 224 px, with the learning rate for a total batch size of 256. As in the authors' code, the
# evaluation above 224 px does not crop.
train_pipeline = _base_.train_dataloader.dataset.pipeline
test_pipeline = _base_.val_dataloader.dataset.pipeline
train_pipeline[0].update(scale=448)
test_pipeline[0].update(scale=448, crop_ratio=1)

model = dict(backbone=dict(img_size=448))
train_dataloader = dict(batch_size=8, dataset=dict(pipeline=train_pipeline))
val_dataloader = dict(batch_size=8, dataset=dict(pipeline=test_pipeline))
test_dataloader = val_dataloader
optim_wrapper = dict(optimizer=dict(lr=1e-3))
param_scheduler = dict(eta_min_ratio=1e-6 / 1e-3)
auto_scale_lr = dict(base_batch_size=256)

del train_pipeline, test_pipeline
