"""Stateless seeding: a seed is a function of its purpose, such as (seed, epoch, index, repeat).

A resumed run therefore draws the same random numbers as a run that was not interrupted.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch

from ...utils._compat.torch import can_use_cuda


def seed_for(*key: int | str) -> int:
    """Returns the 64-bit seed of a key such as ``('sample', seed, epoch, index, repeat)``."""
    digest = hashlib.blake2b(repr(key).encode(), digest_size=8).digest()
    return int.from_bytes(digest, 'little')


def seed_generators(seed: int) -> None:
    """Seeds the generators of Python, numpy and torch, and those of GPUs in use."""
    random.seed(seed)
    np.random.seed(seed % 2**32)
    # Not torch.manual_seed: without a GPU in use, it stores a stack trace for later at every call.
    torch.default_generator.manual_seed(seed)
    if can_use_cuda():
        torch.cuda.manual_seed(seed)


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Seeds the same generators within a context, and restores their states after it."""
    python, numpy = random.getstate(), np.random.get_state()
    devices = [torch.cuda.current_device()] if torch.cuda.is_initialized() else []
    with torch.random.fork_rng(devices):
        seed_generators(seed)
        try:
            yield
        finally:
            random.setstate(python)
            np.random.set_state(numpy)
