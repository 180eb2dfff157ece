"""Stateless seeding: a seed is a function of what it is for, such as (seed, epoch, index)."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch

from ...utils._compat.torch import can_use_cuda


def seed_at(*address: int | str) -> int:
    """The 64-bit seed that belongs to an address such as ``('sample', seed, epoch, index)``."""
    return int.from_bytes(hashlib.blake2b(repr(address).encode(), digest_size=8).digest(), 'little')


def seed_generators(seed: int) -> None:
    """Seeds Python's, numpy's and torch's generators, those of a GPU in use included."""
    random.seed(seed)
    np.random.seed(seed % 2**32)
    # Not torch.manual_seed: without a GPU in use it notes down a stack trace for each it might find
    # later.
    torch.default_generator.manual_seed(seed)
    if can_use_cuda():
        torch.cuda.manual_seed(seed)


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Seeds the same generators for a while; then they go on where they were."""
    python, numpy = random.getstate(), np.random.get_state()
    with torch.random.fork_rng(
        [torch.cuda.current_device()] if torch.cuda.is_initialized() else []
    ):
        seed_generators(seed)
        try:
            yield
        finally:
            random.setstate(python)
            np.random.set_state(numpy)
