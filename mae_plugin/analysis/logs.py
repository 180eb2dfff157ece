"""Reads the logs of mmengine's runs."""

from __future__ import annotations

import json
from pathlib import Path


def read_log(run: str | Path) -> list[dict]:
    """Returns the records of a run by step: losses, learning rates and results of validation.

    mmengine numbers a validation by epoch if training is counted in epochs. Here, a validation has
    the last step of training before it. Records of a resumed run replace those of the steps that
    it repeated.

    Args:
        run: a work dir, or one file ``scalars.json`` in it.

    Raises:
        FileNotFoundError: if there is no log.
    """
    run = Path(run)
    files = [run] if run.is_file() else sorted(run.glob('*/vis_data/scalars.json'))
    if not files:
        raise FileNotFoundError(
            f'{run} holds no log of a run (*/vis_data/scalars.json); give its work dir'
        )
    records: list[dict] = []
    for file in files:
        is_first = True
        for line in file.read_text().splitlines(keepends=True):
            if not line.endswith('\n'):
                # A run in progress may not have finished its last line.
                continue
            record = json.loads(line)
            if 'lr' not in record:
                # A validation.
                record['step'] = records[-1]['step'] if records else 0
            elif is_first:
                # Each start of a run has a file of its own, which may repeat earlier steps.
                records = [earlier for earlier in records if earlier['step'] < record['step']]
                is_first = False
            records.append(record)
    return records
