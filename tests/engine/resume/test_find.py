"""Tests that a run resumes from its newest good checkpoint, and logs why others are skipped."""

import io
import logging
import os
import shutil
import zipfile

import pytest
import torch
from mae_plugin.engine.hooks.atomic_backend import AtomicBackend
from mae_plugin.engine.resume.find import examine, newest_whole_checkpoint, resume_point
from mae_plugin.engine.resume.work_dir import CheckpointPaths
from mae_plugin.weights.digest import add_digest, digest_matches
from mmengine.logging import MMLogger


def saved(content: object, **options) -> bytes:
    file = io.BytesIO()
    torch.save(content, file, **options)
    return file.getvalue()


def run_at(step: int) -> dict:
    """Returns the smallest run that can resume."""
    weights = dict(weight=torch.arange(4.0), bias=torch.full((2,), float(step)))
    return dict(
        meta=dict(epoch=0, iter=step),
        state_dict=weights,
        message_hub=dict(runtime_info=dict(iter=step)),
    )


def write(folder, name: str, content: bytes, at: int) -> None:
    """Writes a file as SafeCheckpointHook does; ``at`` orders files by date."""
    AtomicBackend().put(content, folder / name)
    os.utime(folder / name, (at, at))


@pytest.fixture
def messages():
    """Collects the log."""
    lines = []
    handler = logging.Handler()
    handler.emit = lambda record: lines.append((record.levelname, record.getMessage()))
    logger = MMLogger.get_instance('test_resume_from')
    logger.addHandler(handler)
    yield lines
    logger.removeHandler(handler)


def find(content: bytes, signature: bytes, offset: int) -> int:
    """Returns the position of a header's field, in the last header with a signature."""
    return content.rindex(signature) + offset


def flipped(content: bytes, signature: bytes, offset: int, bit: int = 0) -> bytes:
    content = bytearray(content)
    content[find(content, signature, offset)] ^= 1 << bit
    return bytes(content)


def zip_of_text() -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, 'w') as archive:
        archive.writestr('letter.txt', 'hello')
    return file.getvalue()


CENTRAL, END = b'PK\1\2', b'PK\5\6'
GOOD = add_digest(saved(run_at(9)))
NO_DIGEST = saved(run_at(9))
# Content of a newest checkpoint that cannot be resumed, and the words of the warning.
BAD = {
    'cut short': (GOOD[:-100], 'damaged'),
    'empty': (b'', 'damaged'),
    'a bit of a tensor': (
        flipped(GOOD, b'PK\3\4', 200),
        'damaged: its content does not match its checksum',
    ),
    'compression method': (flipped(GOOD, CENTRAL, 10), 'damaged: its content'),
    'encrypted': (flipped(GOOD, CENTRAL, 8), 'damaged: its content'),
    'disk number': (flipped(GOOD, END, 4), 'damaged: its content'),
    'name not UTF-8': (flipped(GOOD, CENTRAL, 46, bit=7), 'damaged: its content'),
    'compression method, no digest': (flipped(NO_DIGEST, CENTRAL, 10), 'damaged'),
    'encrypted, no digest': (flipped(NO_DIGEST, CENTRAL, 8), 'damaged'),
    'name not UTF-8, no digest': (flipped(NO_DIGEST, CENTRAL, 46, bit=7), 'damaged'),
    'a zip of something else': (zip_of_text(), 'damaged or not a checkpoint'),
    'a text': (b'not a checkpoint', 'damaged or not a checkpoint'),
    'weights alone': (saved(dict(weight=torch.zeros(1))), 'holds weights alone'),
    'a tensor': (saved(torch.zeros(1)), 'no'),
    'a list': (saved([1]), 'no'),
    'nothing': (saved(None), 'no'),
    'no iteration': (saved({**run_at(9), 'meta': dict(epoch=1)}), "holds None as meta['iter']"),
    'a negative epoch': (
        saved({**run_at(9), 'meta': dict(epoch=-1, iter=1)}),
        "holds -1 as meta['epoch']",
    ),
    'meta is a text': (saved({**run_at(9), 'meta': 'yes'}), 'holds a str as meta'),
    'no message hub': (
        saved({k: v for k, v in run_at(9).items() if k != 'message_hub'}),
        "holds no 'message_hub'",
    ),
    'no batch': (
        saved({**run_at(9), 'meta': dict(epoch=0, iter=9, batch=['8', 4])}),
        "as meta['batch']",
    ),
}


@pytest.mark.parametrize('kind', BAD)
def test_the_newest_good_one_is_taken(tmp_path, messages, kind):
    """Of 19,096 single-bit flips, 798 gave raw errors, and 1,142 damaged files were accepted."""
    content, reason = BAD[kind]
    for step in (3, 6):
        write(tmp_path, f'iter_{step}.pth', saved(run_at(step)), at=step)
    (tmp_path / 'iter_9.pth').write_bytes(content)
    (tmp_path / 'last_checkpoint').write_text(str(tmp_path / 'iter_9.pth'))
    assert resume_point(CheckpointPaths.of(tmp_path)) == tmp_path / 'iter_6.pth'
    ((level, sentence),) = [line for line in messages if 'iter_9.pth' in line[1]]
    assert level == 'WARNING' and sentence.startswith(f'{tmp_path}/iter_9.pth ')
    assert reason in sentence and sentence.endswith('so training does not resume from it.')


@pytest.mark.parametrize('kind', ['dangling link', 'loop', 'folder', 'FIFO', 'unreadable'])
def test_what_is_no_file(tmp_path, messages, kind):
    write(tmp_path, 'epoch_8.pth', saved(run_at(8)), at=8)
    odd = tmp_path / 'epoch_9.pth'
    if kind == 'dangling link':
        odd.symlink_to('nowhere')
    elif kind == 'loop':
        odd.symlink_to('epoch_9.pth')
    elif kind == 'folder':
        odd.mkdir()
    elif kind == 'FIFO':
        os.mkfifo(odd)
    else:
        odd.symlink_to('/proc/self/mem')
    assert resume_point(CheckpointPaths.of(tmp_path)) == tmp_path / 'epoch_8.pth'
    assert any(level == 'WARNING' and f'{odd} is ' in sentence for level, sentence in messages)


@pytest.mark.parametrize(
    'pointer',
    [
        b'\xff\xfe',
        b'',
        b'\n',
        b'/a/\0b',
        b'x' * 5000,
        b'/else/where/iter_77.pth',
        'folder',
        'FIFO',
        'nowhere',
    ],
)
def test_a_pointer_of_no_use(tmp_path, pointer):
    """Uses the dates if last_checkpoint is not readable."""
    for step in (3, 6):
        write(tmp_path, f'iter_{step}.pth', saved(run_at(step)), at=step)
    path = tmp_path / 'last_checkpoint'
    if pointer == 'folder':
        path.mkdir()
    elif pointer == 'FIFO':
        os.mkfifo(path)
    elif pointer == 'nowhere':
        path.symlink_to('nowhere')
    else:
        path.write_bytes(pointer)
    assert resume_point(CheckpointPaths.of(tmp_path)) == tmp_path / 'iter_6.pth'


def test_old_formats_are_good(tmp_path):
    """Accepts torch's format from before 1.6, which is no zip, and files without a digest."""
    legacy, plain = tmp_path / 'iter_3.pth', tmp_path / 'iter_6.pth'
    legacy.write_bytes(saved(run_at(3), _use_new_zipfile_serialization=False))
    plain.write_bytes(saved(run_at(6)))
    assert examine(legacy) == (None, 3) and examine(plain) == (None, 6)
    assert digest_matches(legacy) is digest_matches(plain) is None
    write(tmp_path, 'iter_9.pth', saved(run_at(9)), at=9)
    assert digest_matches(tmp_path / 'iter_9.pth') is True
    assert torch.load(tmp_path / 'iter_9.pth', weights_only=True, mmap=True)['meta']['iter'] == 9


@pytest.mark.parametrize(
    ('template', 'name'),
    [('model_{}.pt', 'model_7.pt'), ('step-{:06d}.bin', 'step-000007.bin'), ('{}', '7')],
)
def test_names_of_ones_own(tmp_path, template, name):
    """`filename_tmpl='model_{}.pt'` trained from epoch 1 on `--resume`, without a warning."""
    write(tmp_path, name, saved(run_at(7)), at=7)
    assert resume_point(CheckpointPaths.of(tmp_path, template=template)) == tmp_path / name


def test_another_template_than_before(tmp_path):
    write(tmp_path, 'model_7.pt', saved(run_at(7)), at=7)
    assert resume_point(CheckpointPaths.of(tmp_path)) == tmp_path / 'model_7.pt'
    shutil.move(tmp_path / 'model_7.pt', tmp_path / 'mine.bin')
    (tmp_path / 'last_checkpoint').write_text('/somewhere/mine.bin')
    assert resume_point(CheckpointPaths.of(tmp_path)) == tmp_path / 'mine.bin'


def test_none_can_be_taken(tmp_path):
    """Raises an error instead of starting anew over a damaged run."""
    (tmp_path / 'epoch_1.pth').write_bytes(b'')
    (tmp_path / 'epoch_2.pth').write_bytes(saved(dict(weight=torch.zeros(1))))
    with pytest.raises(ValueError, match='none of the checkpoints') as error:
        resume_point(CheckpointPaths.of(tmp_path))
    messages = str(error.value)
    assert (
        f'{tmp_path}/epoch_1.pth is damaged' in messages
        and f'{tmp_path}/epoch_2.pth holds weights alone' in messages
    )
    assert 'to start anew, choose another work_dir or move these files away' in messages


def test_a_run_without_its_checkpoints(tmp_path):
    (tmp_path / 'last_checkpoint').write_text('/old/place/epoch_3.pth')
    with pytest.raises(
        ValueError, match=r'last_checkpoint names epoch_3\.pth, but there is no checkpoint in'
    ):
        resume_point(CheckpointPaths.of(tmp_path))


@pytest.mark.parametrize('exists', [True, False])
def test_nothing_to_resume_is_logged(tmp_path, messages, exists):
    """Starts from scratch, as launch scripts use --resume from the first start."""
    work_dir = tmp_path / 'run'
    if exists:
        write(work_dir, 'best_accuracy_epoch_12.pth', saved(run_at(12)), at=12)
        write(work_dir, 'epoch_10-0a1b2c3d.pth', saved(run_at(10)), at=10)
    assert resume_point(CheckpointPaths.of(work_dir)) is None
    assert [
        level for level, sentence in messages if 'training starts from scratch' in sentence
    ] == ['WARNING']


def test_a_copied_work_dir_goes_on_from_its_own(tmp_path):
    """The path in last_checkpoint led to the original's folder, and so to another run."""
    first, copy = tmp_path / 'first', tmp_path / 'copy'
    write(first, 'epoch_1.pth', saved(run_at(1)), at=1)
    (first / 'last_checkpoint').write_text(str(first / 'epoch_1.pth'))
    shutil.copytree(first, copy)
    assert resume_point(CheckpointPaths.of(copy)) == copy / 'epoch_1.pth'


def test_checkpoints_in_a_folder_of_their_own(tmp_path):
    """Finds checkpoints in CheckpointHook's out_dir, in a folder named after the work dir."""
    write(tmp_path / 'checkpoints' / 'run', 'epoch_4.pth', saved(run_at(4)), at=4)
    places = CheckpointPaths.of(tmp_path / 'logs' / 'run', out_dir=str(tmp_path / 'checkpoints'))
    assert resume_point(places) == tmp_path / 'checkpoints' / 'run' / 'epoch_4.pth'


def test_going_back(tmp_path):
    """Finds the newest good checkpoint before a step to roll back to."""
    for step in (3, 6, 9):
        write(tmp_path, f'iter_{step}.pth', saved(run_at(step)), at=step)
    places = CheckpointPaths.of(tmp_path)
    assert newest_whole_checkpoint(places, 7) == tmp_path / 'iter_6.pth'
    (tmp_path / 'iter_6.pth').write_bytes(GOOD[:50])
    assert newest_whole_checkpoint(places, 7) == tmp_path / 'iter_3.pth'
    assert newest_whole_checkpoint(places, 2) is None


def check_flips(path, bits) -> int:
    """Flips bits of a checkpoint one at a time; each is detected, or changes nothing."""
    whole = path.read_bytes()
    expected, harmless = run_at(9), 0
    for bit in bits:
        content = bytearray(whole)
        content[bit // 8] ^= 1 << bit % 8
        path.write_bytes(content)
        fault, step = examine(path)
        if fault is None:
            loaded = torch.load(path, weights_only=True)
            assert step == 9 and loaded['meta'] == expected['meta'], bit
            assert all(
                torch.equal(loaded['state_dict'][key], value)
                for key, value in expected['state_dict'].items()
            )
            harmless += 1
    return harmless


def test_single_bits(tmp_path):
    """Flips every 53rd bit; only flips in the digest's name are not detected."""
    write(tmp_path, 'iter_9.pth', saved(run_at(9)), at=9)
    size = 8 * (tmp_path / 'iter_9.pth').stat().st_size
    assert check_flips(tmp_path / 'iter_9.pth', range(0, size, 53)) <= 7 * 8


@pytest.mark.slow
def test_all_single_bits(tmp_path):
    write(tmp_path, 'iter_9.pth', saved(run_at(9)), at=9)
    size = 8 * (tmp_path / 'iter_9.pth').stat().st_size
    assert check_flips(tmp_path / 'iter_9.pth', range(size)) == 7 * 8
