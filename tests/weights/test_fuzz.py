"""Damaged checkpoints give a one-line error or the original content, and change nothing."""

import argparse
import collections
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from mae_plugin.weights.reading.torch_files import read_torch_file
from mmengine.logging import HistoryBuffer

from ..conftest import ROOT
from ..engine.loops.test_train import STEPS, train
from . import fuzz
from .crafted import ATTACKS, items, text, write


def content() -> dict:
    """A little of everything that checkpoints hold."""
    layer = torch.nn.Linear(3, 2)
    buffer = HistoryBuffer([1.0, 2.0], [1, 1])
    return dict(
        meta=dict(epoch=1, iter=5, cfg='x = 1', seed=2**40, batch=[1, 2, 3, 4]),
        state_dict=layer.state_dict(),
        message_hub=dict(
            log_scalars=collections.OrderedDict(loss=buffer),
            runtime_info=dict(mean=np.float64(1), best=np.arange(3), flag=True),
            resumed_keys=dict(loss=True),
        ),
        args=argparse.Namespace(lr=0.1),
        others=[
            torch.ones(2, dtype=torch.bfloat16),
            torch.Size([1]),
            {1},
            b'x',
            (None, -1.5),
            torch.float16,
        ],
        milestones=collections.Counter([3]),
        parameter=torch.nn.Parameter(torch.zeros(1)),
    )


def files(folder: Path) -> list[Path]:
    torch.save(content(), folder / 'new.pth')
    torch.save(content(), folder / 'protocol_4.pth', pickle_protocol=4)
    torch.save(content(), folder / 'legacy.pth', _use_new_zipfile_serialization=False)
    return sorted(folder.glob('*.pth'))


def test_damage(tmp_path):
    whole = files(tmp_path)
    before = fuzz.process()
    came = {file.stem: fuzz.fuzz(file, tmp_path, 60, seed) for seed, file in enumerate(whole)}
    assert came.keys() == {'new', 'protocol_4', 'legacy'}
    # Both outcomes occur, so both are tested.
    numbers = sum(
        (number for kinds in came.values() for number in kinds.values()), collections.Counter()
    )
    assert numbers['refused'] >= 30 and numbers['read'] >= 10 and numbers.total() == 5 * 60, came
    assert fuzz.process() == before


def test_the_fuzzer_itself(tmp_path):
    """The fuzzer distinguishes values, and types."""
    (file, *_) = files(tmp_path)
    assert fuzz.same(read_torch_file(file), read_torch_file(file))
    for change in (
        lambda read: read['state_dict']['bias'].add_(1),
        lambda read: read['state_dict']._metadata.clear(),
        lambda read: read['meta'].update(iter=5.0),
        lambda read: read['message_hub']['runtime_info'].update(best=np.arange(3, dtype=np.int32)),
        lambda read: read.update(args=collections.OrderedDict(read['args'])),
        lambda read: read.pop('args'),
    ):
        changed = read_torch_file(file)
        change(changed)
        assert not fuzz.same(changed, read_torch_file(file))
    assert fuzz.is_plain(read_torch_file(file))
    assert not any(
        map(fuzz.is_plain, (HistoryBuffer(), argparse.Namespace(), [len], {'a': np.array([None])}))
    )


@pytest.mark.slow
@pytest.mark.timeout(7200)
def test_more_damage(tmp_path, images):
    """Runs thousands of damaged checkpoints, every bit of a small one, and all attacks."""
    train(images, tmp_path / 'run')
    (tmp_path / f'run/iter_{STEPS}.pth').rename(tmp_path / 'run.pth')
    files(tmp_path)
    for number, attack in enumerate(ATTACKS.values()):
        write(tmp_path / f'attack_{number}.pth', items(b'd', text('x'), attack), bytes(8))
    small = tmp_path / 'small.bin'
    torch.save(dict(state_dict=dict(w=torch.ones(2)), meta=dict(iter=1)), small)
    command = [
        sys.executable,
        '-m',
        'tests.weights.fuzz',
        tmp_path,
        '--number',
        3000,
        '--every-bit',
        small,
    ]
    done = subprocess.run(
        list(map(str, command)),
        cwd=ROOT,
        capture_output=True,
        text=True,
        env={**os.environ, 'OMP_NUM_THREADS': '1'},
    )
    assert done.returncode == 0, done.stderr[-4000:]
    came = json.loads(done.stdout.splitlines()[-1])
    assert sum(came['small.bin']['every bit'].values()) == 8 * small.stat().st_size
    assert sum(came['run.pth']['other pickles'].values()) == 3000
    print(json.dumps(came, indent=1))
