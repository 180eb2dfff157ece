"""Images that cannot be read, in a run of days."""

from __future__ import annotations

import logging
import math
import zlib
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from mmengine.logging import print_log
from torch.utils.data import get_worker_info

from ..utils.printable import printable

_FALSE_ALARM = 1e-6
_counting = True


@contextmanager
def counting(on: bool) -> Iterator[None]:
    """Makes :class:`SkippedImages` count images for a while, or not.

    Several crops of one image are one image: where it is broken, all of its crops are.
    """
    global _counting
    before, _counting = _counting, on
    try:
        yield
    finally:
        _counting = before


def exceeds_share(skipped: int, asked: int, share: float) -> bool:
    """Whether so many skipped images prove that the true share is above the allowed one.

    The question may be asked after every image: over a whole run, whatever its length, the answer
    is wrongly yes with a probability below one in a million. The likelihood of the images under all
    shares, each as probable as the others, is compared with that under the allowed share; such a
    ratio exceeds 1 / p with probability p at most (Ville's inequality).

    Args:
        skipped: images that could not be read.
        asked: all images.
        share: what is allowed, from 0 to 1.
    """
    if skipped <= share * asked:
        return False
    if share == 0:
        return True
    fine = asked - skipped
    under_all = math.lgamma(skipped + 1) + math.lgamma(fine + 1) - math.lgamma(asked + 2)
    under_allowed = skipped * math.log(share) + fine * math.log1p(-share)
    return under_all - under_allowed > -math.log(_FALSE_ALARM)


class SkippedImages:
    """Counts images that were skipped, over all workers of a data loader, and says when they are
    too many.

    Args:
        max_share: of the images asked for; a share that is surely above it ends the run.
        at_least: images to ask for before the share is looked at.
    """

    _SLOTS, _REMEMBERED = 256, 4096

    def __init__(self, max_share: float, at_least: int = 100) -> None:
        if not 0 <= max_share <= 1:
            raise ValueError(
                f'max_skipped={max_share} is out of range: it is a share of images, from 0 to 1'
            )
        self.max_share = max_share
        self.at_least = at_least
        # Workers are forks that share this memory; each adds to a row of its own.
        self._asked = torch.zeros(self._SLOTS, dtype=torch.long).share_memory_()
        self._skipped = torch.zeros(self._SLOTS, dtype=torch.long).share_memory_()
        self._said = torch.zeros(self._REMEMBERED, dtype=torch.long).share_memory_()

    @property
    def asked(self) -> int:
        """Images asked for."""
        return int(self._asked.sum())

    @property
    def skipped(self) -> int:
        """Images skipped; one that is asked for in every epoch counts in every epoch."""
        return int(self._skipped.sum())

    def count(self) -> None:
        """Notes that an image is asked for, unless :func:`counting` is off."""
        if _counting:
            # By way of numpy, which is faster at one number.
            self._asked.numpy()[self._slot()] += 1

    def skip(self, path: str, reason: Exception) -> None:
        """Notes that an image is skipped, unless :func:`counting` is off; logs one line for each
        path.

        Raises:
            RuntimeError: if too many are.
        """
        if _counting:
            self._skipped[self._slot()] += 1
        skipped, asked = self.skipped, self.asked
        path, reason = printable(path), printable(reason)
        if _counting and asked >= self.at_least and exceeds_share(skipped, asked, self.max_share):
            raise RuntimeError(
                f'{skipped} of {asked} images could not be read, more than the '
                f'{self.max_share:.1%} that max_skipped '
                f'allows; the last one: {path} ({reason})'
            )
        mark, place = zlib.crc32(path.encode()) + 1, zlib.adler32(path.encode()) % self._REMEMBERED
        if self._said[place] != mark:
            self._said[place] = mark
            print_log(
                f'Skipped {path}: {reason}. Another image takes its place ({skipped} skipped of '
                f'{asked}).',
                logger='current',
                level=logging.WARNING,
            )

    def _slot(self) -> int:
        worker = get_worker_info()
        return 0 if worker is None else 1 + worker.id % (self._SLOTS - 1)
