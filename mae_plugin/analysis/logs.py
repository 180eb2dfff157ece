"""What mmengine's runs have written down about themselves."""

from __future__ import annotations

import json
from pathlib import Path


def read_log(run: str | Path) -> list[dict]:
    """The records of a run by step: losses and rates of training, and what a validation measured.

    mmengine counts a validation in epochs where training is counted in epochs; here it stands at
    the last step of training before it. Where a run was resumed, what came later replaces what it
    repeated.

    Args:
        run: a work dir, or one file ``scalars.json`` in it.

    Raises:
        FileNotFoundError: if nothing was logged there.
    """
    run = Path(run)
    files = [run] if run.is_file() else sorted(run.glob('*/vis_data/scalars.json'))
    if not files:
        raise FileNotFoundError(
            f'{run} holds no log of a run (*/vis_data/scalars.json); give its work dir'
        )
    records: list[dict] = []
    for file in files:
        resumed = True
        # A run under way may not have finished its last line.
        for line in file.read_text().splitlines(keepends=True):
            if not line.endswith('\n'):
                continue
            record = json.loads(line)
            if 'lr' not in record:
                record['step'] = records[-1]['step'] if records else 0
            elif resumed:
                records = [earlier for earlier in records if earlier['step'] < record['step']]
                resumed = False
            records.append(record)
    return records
