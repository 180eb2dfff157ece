"""What is read from a file of ``torch.save``: data, whole and unchanged, and nothing else."""

import argparse
import collections
import os

import numpy as np
import pytest
import torch
from mae_plugin.weights import check_whole
from mae_plugin.weights.reading.torch_files import read_torch_file
from mmengine.logging import HistoryBuffer
from mmengine.runner import CheckpointLoader

from ..crafted import Call

FORMATS = [dict(pickle_protocol=p) for p in (2, 3, 4, 5)] + [
    dict(_use_new_zipfile_serialization=False)
]


@pytest.mark.parametrize('options', FORMATS, ids=str)
def test_what_a_runner_writes_loads(tmp_path, options):
    buffer = HistoryBuffer()
    for value in (3.0, 1.0, 2.0):
        buffer.update(value)
    written = dict(
        message_hub=dict(
            log_scalars=dict(loss=buffer, empty=HistoryBuffer()),
            runtime_info=dict(iter=3, mean=np.float64(2), n=np.int64(7)),
        ),
        state_dict=dict(w=torch.ones(2)),
        array=np.arange(3, dtype=np.float32),
    )
    torch.save(written, tmp_path / 'c.pth', **options)
    check_whole(tmp_path / 'c.pth')
    read = CheckpointLoader.load_checkpoint(str(tmp_path / 'c.pth'))
    again = read['message_hub']['log_scalars']['loss']
    assert [again.min(), again.max(), again.current(), again.mean()] == [1, 3, 2, 2]
    assert again.statistics('max', 2) == 2
    assert len(read['message_hub']['log_scalars']['empty'].data[0]) == 0
    assert read['message_hub']['runtime_info'] == dict(iter=3, mean=2.0, n=7)
    assert read['array'].tolist() == [0, 1, 2]


def equal(read: object, written: object) -> bool:
    """Whether two values are of the same type, shape and content, to the bit."""
    if isinstance(written, torch.Tensor):
        return (
            (read.dtype, read.shape, read.stride())
            == (written.dtype, written.shape, written.stride())
            and read.storage_offset() == written.storage_offset()
            and (
                written.is_meta
                or read.untyped_storage().tolist() == written.untyped_storage().tolist()
            )
        )
    if isinstance(written, np.ndarray):
        same = (
            read.dtype == written.dtype.newbyteorder('=')
            and read.flags.f_contiguous == written.flags.f_contiguous
        )
        return same and np.array_equal(read, written)
    return type(read) is type(written) and read == written


@pytest.mark.parametrize('options', FORMATS, ids=str)
def test_every_kind_of_data(tmp_path, options):
    x = torch.arange(12.0).reshape(3, 4)
    written = {
        **dict(
            tensor=x,
            part=x[1:, 1:],
            turned=x.t(),
            scalar=torch.tensor(3.5),
            expanded=torch.ones(1).expand(5),
        ),
        **dict(
            empty=torch.zeros(0, 4),
            more_empty=torch.zeros(3, 0, 2),
            meta=torch.empty(3, 4, device='meta'),
        ),
        **{
            str(t): x.to(t)
            for t in (
                torch.bfloat16,
                torch.float16,
                torch.float64,
                torch.int64,
                torch.int8,
                torch.bool,
            )
        },
        **dict(
            complex_tensor=torch.complex(x, x), array=np.arange(6, dtype=np.float32).reshape(2, 3).T
        ),
        **dict(
            big_endian=np.arange(3, dtype='>i4'),
            empty_array=np.zeros((0, 3)),
            truth=np.array([True, False]),
        ),
        **dict(
            number=np.float64(2), flag=np.bool_(True), dtype=torch.float16, size=torch.Size([1, 2])
        ),
        **dict(
            device=torch.device('cuda', 0), milestones=collections.Counter([30, 30, 60]), set={1, 2}
        ),
        **dict(
            frozen=frozenset('ab'),
            bytes=b'\xffx',
            no_bytes=b'',
            complex=1j,
            big=2**70,
            small=-5,
            float=1e300,
        ),
        **dict(
            nested=[(1, [2, (3,)])],
            text='\u00e9\u2603',
            ordered=collections.OrderedDict(b=1, a=2),
            none=None,
        ),
    }
    if 'pickle_protocol' in options:
        # torch writes these in the old format too, but cannot read them.
        written |= {str(t): x.to(t) for t in (torch.float8_e4m3fn, torch.uint16)}
    torch.save(written, tmp_path / 'c.pth', **options)
    check_whole(tmp_path / 'c.pth')
    read, meta = (read_torch_file(tmp_path / 'c.pth', device) for device in ('cpu', 'meta'))
    assert read.keys() == written.keys()
    assert {key for key in written if not equal(read[key], written[key])} == set()
    # Views of one storage still are.
    read['tensor'][1, 1] = -1
    assert read['part'][0, 0] == read['turned'][1, 1] == -1
    tensors = {key for key, value in written.items() if isinstance(value, torch.Tensor)}
    assert all(meta[key].is_meta and meta[key].shape == written[key].shape for key in tensors)


def test_modules_and_arguments(tmp_path):
    """Parameters and a Namespace come as tensors and a dict; a state dict keeps what torch notes
    beside it.
    """
    layer = torch.nn.Linear(2, 2)
    marked = torch.zeros(3)
    marked.note = 'x'
    arguments = argparse.Namespace(lr=0.1, norm_pix_loss=True)
    groups = collections.defaultdict(dict, {1: {2: 3}})
    tied = [layer.weight, layer.weight]
    written = dict(
        state_dict=layer.state_dict(), tied=tied, args=arguments, marked=marked, groups=groups
    )
    torch.save(written, tmp_path / 'c.pth')
    read = read_torch_file(tmp_path / 'c.pth')
    assert read['state_dict']._metadata == layer.state_dict()._metadata
    assert type(read['tied'][0]) is torch.Tensor and read['tied'][0] is read['tied'][1]
    assert torch.equal(read['state_dict']['weight'], layer.weight)
    assert read['args'] == dict(lr=0.1, norm_pix_loss=True) and type(read['args']) is dict
    assert type(read['marked']) is torch.Tensor and not hasattr(read['marked'], 'note')
    assert read['groups'] == {1: {2: 3}}


@pytest.mark.parametrize(
    'payload',
    [
        lambda path: Call(os.system, f'touch {path}'),
        lambda path: Call(getattr, HistoryBuffer, '__init__'),
        lambda path: Call(getattr, HistoryBuffer.mean, '__globals__'),
        lambda path: Call(getattr, np.ndarray, 'tofile'),
        lambda path: Call(eval, f'open({str(path)!r}, "w")'),
    ],
)
def test_anything_else_is_refused_and_does_not_run(tmp_path, payload):
    touched = tmp_path / 'touched'
    torch.save(dict(state_dict={}, extra=payload(touched)), tmp_path / 'c.pth')
    with pytest.raises(ValueError, match=r'c\.pth holds \S+, a type that no checkpoint needs'):
        read_torch_file(tmp_path / 'c.pth')
    assert not touched.exists()
