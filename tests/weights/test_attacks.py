"""Crafted checkpoints are refused in one line or read as data, and leave the process unchanged."""

import argparse
import pickle
import tracemalloc

import numpy as np
import pytest
import torch
from mae_plugin.weights.loading import load_from_local
from mae_plugin.weights.reading.torch_files import read_torch_file
from mmengine.logging import HistoryBuffer

from .crafted import (  # fmt: skip
    ATTACKS,
    BYTES,
    CURRENT,
    array,
    dtype,
    items,
    namespace,
    new_buffer,
    number,
    statistics,
    tensor,
    text,
    write,
)
from .fuzz import process


@pytest.mark.parametrize('attack', ATTACKS)
def test_attack(tmp_path, attack):
    write(tmp_path / 'c.pth', items(b'd', text('x'), ATTACKS[attack]), b'\x00\x00\x80?' * 2)
    before = process()
    tracemalloc.start()
    for read in (read_torch_file, load_from_local):
        with pytest.raises(
            ValueError,
            match=r'c\.pth (holds \S+, a type that|is not a readable checkpoint)',
        ) as e:
            read(str(tmp_path / 'c.pth'))
        assert '\n' not in str(e.value) and len(str(e.value)) < 600
    assert tracemalloc.get_traced_memory()[1] < 64 << 20
    tracemalloc.stop()
    assert process() == before


def test_what_surrounds_the_attacks_loads(tmp_path):
    """The same instructions are accepted where they belong, so their form is not refused."""
    buffer = new_buffer(
        _log_history=array(dtype('f8')), _count_history=array(dtype('f8')), max_length=number(5)
    )
    parts = (tensor(2, [2], [1]), array(dtype('f8')), buffer, namespace(lr=number(3)))
    write(tmp_path / 'c.pth', items(b'd', text('x'), items(b'l', *parts)), b'\x00\x00\x80?' * 2)
    weights, numbers, history, arguments = read_torch_file(tmp_path / 'c.pth')['x']
    assert weights.tolist() == [1, 1] and numbers.tobytes() == b'x' * 8
    assert history.keys() == {'log_history', 'count_history', 'max_length'} and arguments == dict(
        lr=3
    )


def test_statistics_of_a_buffer_are_left_out(tmp_path):
    """Formerly an entry ``evil`` stayed in the process, among the statistics of all buffers."""
    write(tmp_path / 'c.pth', items(b'd', text('x'), statistics(CURRENT)))
    before = process()
    assert read_torch_file(tmp_path / 'c.pth')['x'].keys() == {
        'log_history',
        'count_history',
        'max_length',
    }
    assert process() == before


def test_torch_opens_what_is_written_here(tmp_path):
    """torch reads these files, so a reader cannot refuse the attacks for their form."""
    write(tmp_path / 'c.pth', items(b'd', text('x'), tensor(2, [2], [1])), b'\x00\x00\x80?' * 2)
    assert torch.load(tmp_path / 'c.pth', weights_only=True)['x'].tolist() == [1, 1]


def test_bytes_that_are_no_bool(tmp_path):
    """numpy adds the bytes of a mask to count, and writes out of bounds if one exceeds 1."""
    masks = tensor(4, [4], [1], kind='BoolStorage'), array(dtype('b1'), BYTES, (8,))
    write(tmp_path / 'c.pth', items(b'l', *masks), b'\x00\x02\xff\x01')
    torch_mask, numpy_mask = read_torch_file(tmp_path / 'c.pth')
    assert torch_mask.view(torch.uint8).tolist() == [0, 1, 1, 1]
    assert numpy_mask.view(np.uint8).tolist() == [1] * 8


@pytest.mark.parametrize('content', [torch.ones(3), [1], 'text', None, 3, (1, 2), {1, 2}])
@pytest.mark.parametrize('door', [load_from_local, lambda path: load_from_local(path, 'meta')])
def test_something_else_than_a_dict(tmp_path, content, door):
    """Formerly the error was ``'Tensor' object has no attribute 'get'``."""
    torch.save(content, tmp_path / 'c.pth')
    kind = type(content).__name__
    with pytest.raises(
        ValueError, match=rf'c\.pth holds a {kind}, not the dict that a checkpoint is'
    ):
        door(str(tmp_path / 'c.pth'))


@pytest.mark.parametrize('part', [3, [1], None, 'text', torch.ones(1), {1: torch.ones(1)}])
@pytest.mark.parametrize('name', ['state_dict', 'meta', 'message_hub'])
def test_parts_that_are_no_dicts(tmp_path, name, part):
    torch.save(dict(state_dict={}) | {name: part}, tmp_path / 'c.pth')
    if part is None and name != 'state_dict':
        assert load_from_local(str(tmp_path / 'c.pth'))[name] is None
        return
    with pytest.raises(
        ValueError, match=rf'c\.pth holds a {type(part).__name__} as {name}, not a dict of names'
    ):
        load_from_local(str(tmp_path / 'c.pth'))


def test_plain_pickles_are_not_files_of_torch(tmp_path):
    (tmp_path / 'c.pth').write_bytes(pickle.dumps(dict(state_dict={})))
    with pytest.raises(
        ValueError, match=r'c\.pth is not .*: it does not begin like a file of torch'
    ):
        read_torch_file(tmp_path / 'c.pth')


def test_importing_leaves_torch_as_it_is():
    """The import adds no type to torch's list of safe ones."""
    safe = torch.serialization.get_safe_globals()
    assert not {HistoryBuffer, np.ndarray, np.dtype, argparse.Namespace} & set(safe)
    # Pairs of a function and the name by which a pickle refers to it, such as 'builtins.getattr'.
    assert not [entry for entry in safe if isinstance(entry, tuple)]


def test_text_of_a_config_is_not_run(tmp_path):
    """On resuming, mmengine runs ``meta['config']``, which mmcv wrote, as Python code."""
    torch.save(
        dict(meta=dict(config='import os; os.abort()', cfg='x = 1', iter=1), state_dict={}),
        tmp_path / 'c.pth',
    )
    assert load_from_local(str(tmp_path / 'c.pth'))['meta'] == dict(cfg='x = 1', iter=1)
