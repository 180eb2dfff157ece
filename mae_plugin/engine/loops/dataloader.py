"""Makes the config of a data loader resumable: seeded samples, resumable order, checked batches."""

from __future__ import annotations

import torch

from ...data.collate import CheckedCollate
from ..hooks.preemption import ignore_signals_except_parents
from .sampler import ResumableSampler, SeededDataset
from .total_batch import TotalBatch


def make_resumable(dataloader: dict, seed: int, endless: bool, total_batch: TotalBatch) -> dict:
    """Returns the config of a data loader with SeededDataset and ResumableSampler.

    Args:
        dataloader: config with a DefaultSampler or InfiniteSampler.
        seed: seed of the run.
        endless: whether to yield epoch after epoch without end.
        total_batch: composition of the total batch.

    Raises:
        ValueError: for another sampler, or a batch sampler.
    """
    sampler = dataloader['sampler']
    kind = sampler['type'] if isinstance(sampler['type'], str) else sampler['type'].__name__
    if kind not in ('DefaultSampler', 'InfiniteSampler') or dataloader.get('batch_sampler'):
        raise ValueError(
            'a resumable loop cannot start within the order of '
            f'{dataloader.get("batch_sampler") or kind}; use DefaultSampler, or '
            "mmengine's own loop with train_cfg.type=EpochBasedTrainLoop"
        )
    # With complete updates, the number of updates does not depend on the number of ranks.
    drop_rest = dataloader.get('drop_last') or total_batch.accumulate > 1
    options = {name: sampler[name] for name in ('shuffle', 'repeats') if name in sampler}
    # The config overrides the default of `pin_memory`, and the entries below override the config.
    return {
        'pin_memory': torch.cuda.is_available(),
        **dataloader,
        'dataset': dict(type=SeededDataset, dataset=dataloader['dataset']),
        'sampler': dict(
            type=ResumableSampler,
            seed=seed,
            endless=endless,
            multiple=total_batch.size if drop_rest else 1,
            **options,
        ),
        'collate_fn': CheckedCollate(dataloader.get('collate_fn', dict(type='pseudo_collate'))),
        'worker_init_fn': dict(type=ignore_signals_except_parents),
    }
