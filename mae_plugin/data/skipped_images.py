"""Counting of skipped images: an unreadable image is replaced, and too many of them end the run."""

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

# Largest probability of ending a run whose share of unreadable images is allowed.
_FALSE_ALARM = 1e-6
_counting = True


@contextmanager
def counting(on: bool) -> Iterator[None]:
    """Switches the counting of :class:`SkippedImages` on or off within the context.

    Several crops of one image count as one image: if it is damaged, all of its crops fail.
    """
    global _counting
    before, _counting = _counting, on
    try:
        yield
    finally:
        _counting = before


def exceeds_share(skipped: int, requested: int, share: float) -> bool:
    """Returns whether the skipped images prove that the true share is above the allowed one.

    The test may be repeated after every image. Over a whole run of any length, it returns a wrong
    True with a probability below one in a million. It compares the likelihood of the images under
    all shares, each equally probable, with the likelihood under the allowed share. Such a ratio
    exceeds 1 / p with probability p at most (Ville's inequality).

    Args:
        skipped: number of images that could not be read.
        requested: number of all images.
        share: allowed share, from 0 to 1.
    """
    if skipped <= share * requested:
        return False
    if share == 0:
        return True
    readable = requested - skipped
    # Logarithm of the integral of p^skipped (1 - p)^readable over all shares p.
    under_all = math.lgamma(skipped + 1) + math.lgamma(readable + 1) - math.lgamma(requested + 2)
    under_allowed = skipped * math.log(share) + readable * math.log1p(-share)
    return under_all - under_allowed > -math.log(_FALSE_ALARM)


class SkippedImages:
    """Counts skipped images over all workers of a data loader; raises if there are too many.

    Args:
        max_share: allowed share of the requested images; a share surely above it ends the run.
        at_least: number of requested images before the share is tested.
    """

    _SLOTS, _REMEMBERED = 256, 4096

    def __init__(self, max_share: float, at_least: int = 100) -> None:
        if not 0 <= max_share <= 1:
            raise ValueError(
                f'max_skipped={max_share} is out of range: it is a share of images, from 0 to 1'
            )
        self.max_share = max_share
        self.at_least = at_least
        # Workers are forks that share this memory. Each adds to its own slot, so no lock is needed.
        self._requested = torch.zeros(self._SLOTS, dtype=torch.long).share_memory_()
        self._skipped = torch.zeros(self._SLOTS, dtype=torch.long).share_memory_()
        # Checksums of the paths that were logged, so that each path is logged once.
        self._logged = torch.zeros(self._REMEMBERED, dtype=torch.long).share_memory_()

    @property
    def requested(self) -> int:
        """Number of requested images."""
        return int(self._requested.sum())

    @property
    def skipped(self) -> int:
        """Number of skipped images; an image that is requested in every epoch counts every time."""
        return int(self._skipped.sum())

    def count(self) -> None:
        """Counts a requested image, unless :func:`counting` is off."""
        if _counting:
            # numpy is faster than torch for a single number.
            self._requested.numpy()[self._slot()] += 1

    def skip(self, path: str, reason: Exception) -> None:
        """Counts a skipped image, unless :func:`counting` is off, and logs one line per path.

        Raises:
            RuntimeError: if too many images are skipped.
        """
        if _counting:
            self._skipped[self._slot()] += 1
        skipped, requested = self.skipped, self.requested
        path, cause = printable(path), printable(reason)
        is_tested = _counting and requested >= self.at_least
        if is_tested and exceeds_share(skipped, requested, self.max_share):
            raise RuntimeError(
                f'{skipped} of {requested} images could not be read, more than the '
                f'{self.max_share:.1%} that max_skipped allows; the last one: {path} ({cause})'
            )
        encoded = path.encode()
        mark, place = zlib.crc32(encoded) + 1, zlib.adler32(encoded) % self._REMEMBERED
        if self._logged[place] != mark:
            self._logged[place] = mark
            print_log(
                f'Skipped {path}: {cause}. Another image takes its place ({skipped} skipped of '
                f'{requested}).',
                logger='current',
                level=logging.WARNING,
            )

    def _slot(self) -> int:
        """Returns the slot of this worker; 0 is the main process."""
        worker = get_worker_info()
        return 0 if worker is None else 1 + worker.id % (self._SLOTS - 1)
