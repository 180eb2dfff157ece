"""Checkpoints without pickled classes: any torch opens them, and runs resume from them."""

import collections
import enum
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from mae_plugin.weights.loading import load_from_local
from mae_plugin.weights.plain_state import restore_message_hub, to_plain
from mmengine.config import ConfigDict
from mmengine.logging import HistoryBuffer

from ..engine.loops.test_train import STEPS, assert_identical, train

# torch alone, as on a machine without mmengine.
OPEN = """
import json, sys, torch
read = torch.load(sys.argv[1], weights_only=True)
assert not {'mmengine', 'mae_plugin'} & sys.modules.keys()
kinds, parts = set(), [read]
while parts:
    part = parts.pop()
    kinds.add(type(part).__name__)
    if isinstance(part, (dict, list, tuple)):
        parts += part.values() if isinstance(part, dict) else part
loss = read['message_hub']['log_scalars']['train/loss']
print(json.dumps([sorted(kinds), loss['log_history'].tolist(), loss['max_length']]))
"""


def test_any_torch_opens_ours_and_older_ones_resume(images, tmp_path, monkeypatch):
    """A run resumed from our checkpoint, or from mmengine's, equals the uninterrupted run."""
    losses, weights = train(images, tmp_path / 'whole')
    expected = load_from_local(str(tmp_path / f'whole/iter_{STEPS}.pth'))['message_hub'][
        'log_scalars'
    ]
    for name in ('ours', 'older'):
        with monkeypatch.context() as patch:
            if name == 'older':
                patch.setattr(
                    'mae_plugin.engine.hooks.checkpoint.to_plain', lambda checkpoint: checkpoint
                )
            train(images, tmp_path / name, stop_after=5)
        content = torch.load(tmp_path / name / 'iter_3.pth', weights_only=False)['message_hub'][
            'log_scalars'
        ]
        assert isinstance(content['train/loss'], HistoryBuffer) == (name == 'older')
        rest, resumed = train(images, tmp_path / name, resume=True)
        assert rest == {step: losses[step] for step in range(3, STEPS)}
        assert_identical(resumed, weights)
        scalars = load_from_local(str(tmp_path / name / f'iter_{STEPS}.pth'))['message_hub'][
            'log_scalars'
        ]
        assert scalars.keys() == expected.keys()
        for key in expected.keys() - {'train/time', 'train/data_time', 'time', 'data_time'}:
            assert (
                isinstance(scalars[key], HistoryBuffer)
                and scalars[key].max_length == expected[key].max_length
            )
            for row, other in zip(scalars[key].data, expected[key].data, strict=True):
                np.testing.assert_array_equal(row, other, err_msg=key)
    command = [sys.executable, '-c', OPEN, str(tmp_path / f'ours/iter_{STEPS}.pth')]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0, done.stderr[-2000:]
    kinds, history, length = json.loads(done.stdout)
    assert set(kinds) <= {
        'Tensor',
        'int',
        'float',
        'str',
        'bool',
        'NoneType',
        'dict',
        'OrderedDict',
        'list',
        'tuple',
    }
    assert history == [losses[step] for step in range(STEPS)] and length == 10_000


class Level(enum.IntEnum):
    HIGH = 3


Pair = collections.namedtuple('Pair', 'x y')


@pytest.mark.parametrize(
    ('value', 'expected'),
    [
        (np.float64(0.1), 0.1),
        (np.float32(0.5), 0.5),
        (np.int64(-3), -3),
        (np.uint64(2**64 - 1), 2**64 - 1),
        (np.bool_(True), True),
        (np.complex64(1j), 1j),
        (np.longdouble(2), 2.0),
        (np.str_('a'), 'a'),
        (np.array(['a', 'b']), ['a', 'b']),
        (Level.HIGH, 3),
        (ConfigDict(a=ConfigDict(b=1)), dict(a=dict(b=1))),
        (collections.defaultdict(list, a=[np.int8(1)]), dict(a=[1])),
        (Path('a/b'), 'a/b'),
        ((1, [2.5, None, 'x', b'y']), (1, [2.5, None, 'x', b'y'])),
        ({np.int64(1): (np.float64(2),)}, {1: (2.0,)}),
        ({1, np.int64(2)}, {1, 2}),
        (frozenset('a'), {'a'}),
        (collections.Counter([3, 3]), collections.Counter({3: 2})),
        (torch.float16, torch.float16),
        (torch.Size([2]), torch.Size([2])),
        (True, True),
    ],
)
def test_values(tmp_path, value, expected):
    plain = to_plain(value)
    assert plain == expected and type(plain) is type(expected)
    torch.save(dict(value=plain), tmp_path / 'c.pth')
    assert torch.load(tmp_path / 'c.pth', weights_only=True)['value'] == expected
    assert load_from_local(str(tmp_path / 'c.pth'))['value'] == expected


def test_a_named_tuple_is_a_tuple():
    assert type(to_plain([Pair(1, 2)])[0]) is tuple


@pytest.mark.parametrize(
    'array',
    [np.arange(6.0).reshape(2, 3).T, np.arange(3, dtype='>i2'), np.array([True]), np.ones(())],
)
def test_arrays_become_tensors(array):
    tensor = to_plain(array)
    assert isinstance(tensor, torch.Tensor) and tensor.shape == array.shape
    np.testing.assert_array_equal(tensor, array)
    # Copies, because the run continues while a checkpoint is written.
    array[...] = 0
    assert not np.array_equal(tensor, array)


def test_what_it_is_made_from_stays():
    layer = torch.nn.Linear(1, 1)
    buffer = HistoryBuffer([1.0], [1])
    checkpoint = dict(state_dict=layer.state_dict(), hub=dict(loss=buffer), lr=[np.float64(1)])
    plain = to_plain(checkpoint)
    assert checkpoint['hub']['loss'] is buffer and type(checkpoint['lr'][0]) is np.float64
    assert plain['state_dict']._metadata == checkpoint['state_dict']._metadata
    assert plain['state_dict']['weight'] is checkpoint['state_dict']['weight']
    assert plain['hub']['loss'].keys() == {'log_history', 'count_history', 'max_length'}


def test_what_is_not_data_is_kept_and_logged(tmp_path, monkeypatch):
    messages = []
    monkeypatch.setattr(
        'mae_plugin.weights.plain_state.print_log', lambda text, *_: messages.append(text)
    )
    value = np.random.default_rng(0)
    for _ in range(2):
        assert to_plain(dict(hub=dict(generator=value)))['hub']['generator'] is value
    kind = 'numpy.random._generator.Generator'
    assert messages == [
        f"checkpoint['hub']['generator'] is a {kind}, which is not plain data; checkpoints of "
        'this run can only be loaded with --trust-checkpoint, or after trust_checkpoints() in '
        'Python.'
    ]


@pytest.mark.parametrize('dtype', [np.float64, np.float32, np.int64])
@pytest.mark.parametrize('length', [0, 1, 5])
def test_buffers_there_and_back(dtype, length):
    buffer = HistoryBuffer(max_length=7)
    buffer._log_history, buffer._count_history = (
        np.arange(length).astype(dtype),
        np.ones(length, np.int64),
    )
    checkpoint = dict(message_hub=dict(log_scalars=dict(loss=to_plain(buffer))))
    restore_message_hub(checkpoint)
    again = checkpoint['message_hub']['log_scalars']['loss']
    assert isinstance(again, HistoryBuffer) and again.max_length == 7
    for row, other in zip(again.data, buffer.data, strict=True):
        assert row.dtype == other.dtype and np.array_equal(row, other)
    again.update(2.0)
    assert again.current() == 2


def test_buffers_of_trusted_files(tmp_path, monkeypatch):
    """They are restored with --trust-checkpoint too, where mmengine's own are unpickled."""
    buffers = dict(ours=to_plain(HistoryBuffer([1.0], [1])), older=HistoryBuffer([1.0], [1]))
    torch.save(dict(message_hub=dict(log_scalars=buffers)), tmp_path / 'c.pth')
    monkeypatch.setattr('mae_plugin.weights.loading._trusted', True)
    read = load_from_local(str(tmp_path / 'c.pth'))['message_hub']['log_scalars']
    assert [read[name].current() for name in buffers] == [1, 1]


@pytest.mark.parametrize(
    'changes',
    [
        dict(log_history=np.zeros(3)),
        dict(log_history=np.zeros((2, 1))),
        dict(count_history=[1, 1]),
        dict(count_history=torch.zeros(2, dtype=torch.complex64)),
        dict(max_length=0),
        dict(max_length='7'),
        dict(log_history=None),
    ],
)
def test_a_history_that_is_none(tmp_path, changes):
    history = dict(log_history=np.zeros(2), count_history=np.zeros(2), max_length=7) | changes
    torch.save(dict(message_hub=dict(log_scalars=dict(loss=history))), tmp_path / 'c.pth')
    with pytest.raises(
        ValueError,
        match=r'c\.pth is not a readable checkpoint.*: the history of loss in its message hub is not',
    ):
        load_from_local(str(tmp_path / 'c.pth'))


@pytest.mark.parametrize(
    'hub', [None, 3, {}, dict(log_scalars=[1]), dict(log_scalars=dict(loss=3))]
)
def test_other_message_hubs_stay(hub):
    checkpoint = dict(message_hub=hub)
    restore_message_hub(checkpoint)
    assert checkpoint == dict(message_hub=hub)
