"""Locations of a run's checkpoints on disk."""

from __future__ import annotations

import logging
import os
import re
import string
from pathlib import Path
from typing import NamedTuple

from mmengine.logging import print_log

# mmengine's default names, and those of checkpoints between two regular ones.
_TEMPLATES = ('epoch_{}.pth', 'iter_{}.pth')
# A name that ends with a number, as an earlier run with another template may have written it.
_NUMBERED = re.compile(r'(?!best_).*\d\.(?:pth|pt|ckpt)', re.DOTALL)
# A name with a hash of the content, which mmengine and mmpretrain give to published weights.
_PUBLISHED = re.compile(r'.*-[0-9a-f]{8}\.\w+', re.DOTALL)
# Bytes of the file `last_checkpoint` that are read; a path is shorter.
_POINTER_BYTES = 4096


class CheckpointPaths(NamedTuple):
    """Folders and file names of a run's checkpoints.

    Attributes:
        work_dir: folder of the run, in which the file ``last_checkpoint`` names the last
            checkpoint that was written.
        folder: folder of the checkpoints.
        template: file names of the checkpoints, with ``{}`` for the epoch or iteration.
    """

    work_dir: Path
    folder: Path
    template: str

    @classmethod
    def of(
        cls, work_dir: str | Path, out_dir: str | None = None, template: str | None = None
    ) -> CheckpointPaths:
        """Builds the paths from the settings of a checkpoint hook.

        The settings are those of the config, which mmengine completes later.
        """
        work_dir = Path(work_dir)
        folder = work_dir
        if out_dir is not None and Path(out_dir) != work_dir:
            # mmengine makes a folder of the run's name in `out_dir`.
            folder = Path(out_dir, os.path.basename(os.path.abspath(work_dir)))
        return cls(work_dir, folder, template or _TEMPLATES[0])

    def last_name(self) -> str:
        """Returns the file name of the last checkpoint that was written; empty if unknown.

        Only the name counts: a work dir that was copied resumes from its own checkpoints, not from
        the original's.
        """
        pointer = self.work_dir / 'last_checkpoint'
        try:
            if not pointer.is_file():
                return ''
            with open(pointer, 'rb') as file:
                text = os.fsdecode(file.read(_POINTER_BYTES)).strip()
        except OSError as error:
            sentence = f'{pointer} cannot be read ({error}), so the dates of the files decide.'
            print_log(sentence, logger='current', level=logging.WARNING)
            return ''
        return os.path.basename(text)

    def candidates(self) -> list[Path]:
        """Returns all paths with the name of a checkpoint of this run, the last written first."""
        last = self.last_name()
        templates = [os.path.basename(name) for name in (self.template, *_TEMPLATES)]
        patterns = [_NUMBERED, *map(_pattern, templates)]
        # A template may lead into a subfolder. A dict keeps the order and drops duplicates.
        folders = {self.folder: None, (self.folder / self.template).parent: None}
        found = []
        for folder in folders:
            names = os.listdir(folder) if folder.is_dir() else []
            for name in names:
                is_checkpoint = any(pattern.fullmatch(name) for pattern in patterns)
                if name == last or (is_checkpoint and not _PUBLISHED.fullmatch(name)):
                    found.append(folder / name)
        # Copying may have changed the dates of files, so the name in `last_checkpoint` goes first.
        return sorted(found, key=lambda path: (path.name == last, *_age(path)), reverse=True)


def _pattern(template: str) -> re.Pattern:
    """Compiles the regular expression of the file names of a template."""
    fields = string.Formatter().parse(template)
    parts = [re.escape(text) + ('' if field is None else r'\d+') for text, field, *_ in fields]
    return re.compile(''.join(parts), re.DOTALL)


def _age(path: Path) -> tuple[int, int]:
    """Returns the date of a file and, to break ties, the number in its name."""
    number = re.findall(r'\d+', path.stem)
    return path.lstat().st_mtime_ns, int(number[-1]) if number else -1
