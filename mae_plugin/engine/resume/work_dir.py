"""Where a run's checkpoints are on disk."""

from __future__ import annotations

import logging
import os
import re
import string
from pathlib import Path
from typing import NamedTuple

from mmengine.logging import print_log

# What mmengine calls checkpoints by default, and what is written between two regular ones.
_TEMPLATES = ('epoch_{}.pth', 'iter_{}.pth')
# Whatever a template of an earlier run may have been: a name that ends with a number.
_NUMBERED = re.compile(r'(?!best_).*\d\.(?:pth|pt|ckpt)', re.DOTALL)
# A name with a hash of the content, which mmengine and mmpretrain give to published weights.
_PUBLISHED = re.compile(r'.*-[0-9a-f]{8}\.\w+', re.DOTALL)


class Places(NamedTuple):
    """Where a run's checkpoints are, and what they are called."""

    work_dir: Path
    """The run's folder, in which ``last_checkpoint`` names the last checkpoint that was written."""
    folder: Path
    """The folder of the checkpoints."""
    template: str
    """Their names, with ``{}`` for the number of the epoch or iteration."""

    @classmethod
    def of(
        cls, work_dir: str | Path, out_dir: str | None = None, template: str | None = None
    ) -> Places:
        """The places that follow from the settings of a checkpoint hook, before mmengine has
        completed them.
        """
        work_dir = Path(work_dir)
        same = out_dir is None or Path(out_dir) == work_dir
        folder = work_dir if same else Path(out_dir, os.path.basename(os.path.abspath(work_dir)))
        return cls(work_dir, folder, template or _TEMPLATES[0])

    def last_name(self) -> str:
        """The file name of the last checkpoint that was written; empty if nothing says.

        Only the name counts: a work dir that was copied goes on from its own checkpoints, not from
        the original's.
        """
        pointer = self.work_dir / 'last_checkpoint'
        try:
            if not pointer.is_file():
                return ''
            with open(pointer, 'rb') as file:
                text = os.fsdecode(file.read(4096)).strip()
        except OSError as error:
            sentence = f'{pointer} cannot be read ({error}), so the dates of the files decide.'
            print_log(sentence, logger='current', level=logging.WARNING)
            return ''
        return os.path.basename(text)

    def candidates(self) -> list[Path]:
        """Everything that is named like a checkpoint of this run, the last written one first."""
        last = self.last_name()
        patterns = [
            _NUMBERED,
            *(_pattern(os.path.basename(name)) for name in (self.template, *_TEMPLATES)),
        ]
        folders = {self.folder: None, (self.folder / self.template).parent: None}
        found = []
        for folder in folders:
            names = os.listdir(folder) if folder.is_dir() else []
            for name in names:
                regular = any(
                    pattern.fullmatch(name) for pattern in patterns
                ) and not _PUBLISHED.fullmatch(name)
                if regular or (last and name == last):
                    found.append(folder / name)
        # Copying may have changed the dates of files, so what the last run noted goes first.
        return sorted(found, key=lambda path: (path.name == last, *_age(path)), reverse=True)


def _pattern(template: str) -> re.Pattern:
    """What the file names of a template look like."""
    fields = string.Formatter().parse(template)
    parts = [re.escape(text) + ('' if field is None else r'\d+') for text, field, *_ in fields]
    return re.compile(''.join(parts), re.DOTALL)


def _age(path: Path) -> tuple[int, int]:
    """The date of a file, and, where dates are equal, the number in its name."""
    number = re.findall(r'\d+', path.stem)
    return path.lstat().st_mtime_ns, int(number[-1]) if number else -1
