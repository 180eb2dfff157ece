"""Trains a tiny MAE with known masks in float64; as a script, with two processes.

python -m torch.distributed.run --nproc-per-node 2 -m tests.engine.ranks IMAGES FOLDER
"""

import os
import signal
import sys
import uuid
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import torch
from mae_plugin import MAE
from mmengine.config import Config
from mmengine.dist import all_gather_object, get_rank
from mmengine.hooks import Hook
from mmengine.runner import Runner
from mmpretrain.registry import HOOKS, MODELS
from torch.distributed.algorithms.ddp_comm_hooks.default_hooks import allreduce_hook

from ..conftest import LINEAR, PRETRAIN, ROOT, tiny_config

STEPS = 10
LR = 1e-3


@MODELS.register_module(force=True)
class KnownMasks(MAE):
    """An MAE whose mask of an image depends on the image's number alone.

    ``spoil`` returns for a step of this rank whether 'loss' or 'gradient' becomes NaN. With
    ``lacks_data``, up to three quarters of an image's rows hold no data, depending on its number.
    """

    spoil = staticmethod(lambda step, rank: None)
    lacks_data = False
    step = 0

    def loss(self, inputs, data_samples=None, **kwargs):
        noise = []
        for sample in data_samples:
            generator = torch.Generator().manual_seed(int(Path(sample.img_path).stem))
            noise.append(torch.rand(self.backbone.num_patches, generator=generator))
            if self.lacks_data:
                sample.nodata = torch.zeros(inputs.shape[-2:], dtype=torch.bool)
                sample.nodata[: 8 * (int(Path(sample.img_path).stem) % 4)] = True
        loss = super().loss(inputs.double(), data_samples, noise=torch.stack(noise))['loss']
        spoilt = self.spoil(self.step, get_rank())
        self.step += 1
        if spoilt == 'gradient':
            loss.register_hook(lambda grad: grad * float('nan'))
        return dict(loss=loss * float('nan') if spoilt == 'loss' else loss)


class Notes(Hook):
    """Records losses averaged over ranks, inputs, random numbers, all-reduces and probes."""

    def __init__(self) -> None:
        self.losses, self.skipped, self.all_reduces = {}, {}, 0
        self.pixels, self.draws, self.probes = [], [], []

    def before_train(self, runner):
        if isinstance(runner.model, torch.nn.parallel.DistributedDataParallel):
            runner.model.register_comm_hook(None, self._counted)

    def _counted(self, state, bucket):
        self.all_reduces += 1
        return allreduce_hook(state, bucket)

    def before_train_iter(self, runner, batch_idx, data_batch=None):
        self.pixels.append(float(torch.stack(list(data_batch['inputs'])).double().mean()))
        # From the generator of masks, of which these known ones need nothing.
        self.draws.append(torch.rand(()).item())

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None):
        self.losses[runner.iter] = float(np.nanmean(all_gather_object(outputs['loss'].item())))
        self.skipped[runner.iter] = runner.optim_wrapper.is_skipping()

    def after_val_epoch(self, runner, metrics=None):
        self.probes.append(metrics)


def train(
    images,
    work_dir,
    batch_size,
    accumulate=1,
    spoil=None,
    lacks_data=False,
    launcher='none',
    sharded=False,
    hooks=(),
    **changes,
):
    """Trains for ten updates; returns the records, the weights and the exit code."""
    cfg = Config.fromfile(ROOT / PRETRAIN)
    cfg.model = dict(
        tiny_config(), data_preprocessor=cfg.model.data_preprocessor, type='KnownMasks'
    )
    cfg.train_dataloader.update(batch_size=batch_size, num_workers=0)
    cfg.train_dataloader.pop('persistent_workers')
    cfg.train_dataloader.dataset.update(data_root=str(images), data_prefix='')
    cfg.train_dataloader.dataset.pipeline[0].scale = 32
    cfg.train_cfg = dict(type='ResumableEpochLoop', max_epochs=2)
    cfg.default_hooks.checkpoint.update(interval=-1)
    cfg.merge_from_dict(
        dict(
            work_dir=str(work_dir),
            experiment_name=uuid.uuid4().hex,
            launcher=launcher,
            test_dataloader=None,
            test_cfg=None,
            param_scheduler=dict(warmup=1),
            optim_wrapper=dict(accumulative_counts=accumulate, optimizer=dict(lr=LR)),
            auto_scale_lr=dict(base_batch_size=4),
        )
    )
    cfg.test_evaluator = None
    if launcher != 'none':
        ddp = dict(type='MMDistributedDataParallel', device_ids=None)
        cfg.model_wrapper_cfg = dict(type='FullyShardedModel') if sharded else ddp
    cfg.merge_from_dict(changes)
    former = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    try:
        runner = Runner.from_cfg(cfg)
        notes = Notes()
        core = runner.model.module if launcher != 'none' else runner.model
        core.lacks_data = lacks_data
        if spoil:
            core.spoil = spoil
        runner.register_hook(notes)
        for hook in hooks:
            runner.register_hook(hook)
        code = 0
        try:
            runner.train()
        except SystemExit as ended:
            code = ended.code
    finally:
        torch.set_default_dtype(former)
    return notes, {key: value.clone() for key, value in core.state_dict().items()}, code


def probe(images: Path) -> dict:
    """Returns the settings of a probe after every epoch, with unequal shares of the ranks."""
    pipeline = [dict(type='LoadCenterCrop', scale=32), dict(type='PackInputs')]
    dataset = dict(type='IndexedImages', data_root=str(images), with_label=True, pipeline=pipeline)
    return dict(
        val_dataloader=dict(batch_size=4, num_workers=0, dataset=dataset),
        val_cfg=dict(type='ProbeLoop', bank=dict(indices=[0, *range(4, 25)]), k=5, pool='cls'),
        val_evaluator=[],
        train_cfg=dict(val_interval=1),
        default_hooks=dict(checkpoint=dict(save_best='probe/knn_top1')),
    )


def nan_twice(step: int, rank: int) -> str | None:
    """Spoils a gradient of the second process in one step, and its loss in another."""
    return {3: 'gradient', 7: 'loss'}.get(step) if rank == 1 else None


def nan_for_good(step: int, rank: int) -> str | None:
    return 'loss' if rank == 1 and step >= 7 else None


class SignalAt(Hook):
    """Signals the second process as a scheduler does."""

    def __init__(self, step: int) -> None:
        self.step = step

    def before_train_iter(self, runner, batch_idx, data_batch=None):
        if runner.iter == self.step and get_rank() == 1:
            os.kill(os.getpid(), signal.SIGUSR1)


def probe_statistics() -> list[dict]:
    """Returns each rank's BatchNorm statistics after the hook of the linear probe."""
    norm = torch.nn.BatchNorm1d(3, momentum=1.0, affine=False)
    norm(torch.arange(12.0).reshape(4, 3) * (get_rank() + 1))
    for hook in Config.fromfile(ROOT / LINEAR).custom_hooks:
        HOOKS.build(hook).after_train_epoch(SimpleNamespace(model=norm))
    return all_gather_object(norm.state_dict())


def main() -> None:
    images, folder = map(Path, sys.argv[1:])
    torch.distributed.init_process_group('gloo')
    two, one = dict(batch_size=2), dict(batch_size=1, accumulate=2)
    stopped = dict(two, hooks=[SignalAt(2)])
    probed = probe(folder / 'classes')
    guard = dict(default_hooks=dict(guard=dict(patience=2), checkpoint=dict(interval=1)))
    runs = [
        ('ddp', two | probed),
        ('ddp accumulating', one),
        ('sharded', dict(two, sharded=True, **probed)),
        ('sharded accumulating', dict(one, sharded=True)),
        ('ddp, no data', dict(two, lacks_data=True)),
        ('sharded, no data', dict(one, lacks_data=True, sharded=True)),
        ('ddp, NaN', dict(two, spoil=nan_twice)),
        ('sharded, NaN', dict(two, spoil=nan_twice, sharded=True)),
        ('stopped', stopped),
        ('stopped', dict(two, resume=True, sharded=True)),
        ('sharded, stopped', dict(stopped, sharded=True)),
        ('sharded, stopped', dict(one, resume=True)),
        ('NaN for good', dict(two, spoil=nan_for_good, **guard)),
    ]
    found = {}
    for name, arguments in runs:
        notes, weights, code = train(images, folder / name, launcher='pytorch', **arguments)
        everyone = all_gather_object((notes, weights))
        found.setdefault(name, []).append(
            dict(
                code=code,
                losses=notes.losses,
                skipped=notes.skipped,
                all_reduces=notes.all_reduces,
                weights=[weights for _, weights in everyone],
                probes=[notes.probes for notes, _ in everyone],
                pixels=[notes.pixels for notes, _ in everyone],
                draws=[notes.draws for notes, _ in everyone],
            )
        )
    found['BatchNorm'] = probe_statistics()
    if get_rank() == 0:
        torch.save(found, folder / 'found.pt')


if __name__ == '__main__':
    main()
