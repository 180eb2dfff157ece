"""Shards hold all images of the source, survive a kill, and are the same in every run."""

import gzip
import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tarfile
import time
import zipfile

import numpy as np
import pytest
import tifffile
from mae_plugin.data import IndexedImages
from mae_plugin.data.decoding.decode import EncodedImage
from mae_plugin.data.prepare import Plan, prepare
from mae_plugin.utils.locks import FileLock
from PIL import Image

from ..conftest import ROOT, run, write_jpegs


@pytest.fixture(scope='module')
def source(tmp_path_factory):
    """Two classes, one image in another format, one file that is not an image."""
    root = tmp_path_factory.mktemp('source')
    write_jpegs(root / 'a', 7, size=(120, 90))
    write_jpegs(root / 'b' / 'deep', 4, size=(50, 80), seed=1)
    Image.new('RGB', (100, 100), (250, 20, 20)).save(root / 'b' / 'red.png')
    (root / 'a' / 'broken.jpg').write_bytes(b'no image')
    (root / 'a' / 'notes.txt').write_text('nothing')
    return root


NAMES = [f'a/00{i}.jpg' for i in range(7)] + [f'b/deep/00{i}.jpg' for i in range(4)] + ['b/red.png']


def contents(folder) -> dict[str, bytes]:
    found = {}
    for path in sorted(folder.glob('*.tar')):
        with tarfile.open(path) as file:
            found |= {member.name: file.extractfile(member).read() for member in file}
    return found


def test_a_folder(source, tmp_path):
    manifest = prepare(Plan(str(source), per_shard=5), tmp_path / 'out', workers=2)
    found = contents(tmp_path / 'out')
    assert list(found) == NAMES
    assert all(data == (source / name).read_bytes() for name, data in found.items())
    assert (manifest['images'], [shard['images'] for shard in manifest['shards']]) == (
        12,
        [5, 4, 3],
    )
    assert (
        manifest['skipped'][0]['name'] == 'a/broken.jpg'
        and 'in no known image format' in manifest['skipped'][0]['reason']
    )
    for shard in manifest['shards']:
        data = (tmp_path / 'out' / shard['file']).read_bytes()
        assert (shard['bytes'], shard['sha256']) == (len(data), hashlib.sha256(data).hexdigest())
    assert manifest == json.loads((tmp_path / 'out' / 'manifest.json').read_text())
    assert sorted(path.name for path in (tmp_path / 'out').iterdir()) == [
        'manifest.json',
        'plan.json',
        *(f'shard-0000{i}.tar' for i in range(3)),
    ]
    dataset = IndexedImages(str(tmp_path / 'out'), with_label=True, index_dir=str(tmp_path))
    assert [dataset.get_data_info(i)['gt_label'] for i in range(12)] == [0] * 7 + [1] * 5


def test_archives_hold_the_same(source, tmp_path):
    """Zip, tar and compressed tar, with the single top folder of most archives."""
    with zipfile.ZipFile(tmp_path / 'a.zip', 'w') as file:
        for path in source.rglob('*.*'):
            file.write(path, f'top/{path.relative_to(source)}')
    with tarfile.open(tmp_path / 'a.tar', 'w') as file:
        file.add(source, 'top')
    (tmp_path / 'a.tgz').write_bytes(gzip.compress((tmp_path / 'a.tar').read_bytes()))
    for name in ('a.zip', 'a.tar', 'a.tgz'):
        prepare(Plan(str(tmp_path / name), inside='/top/'), tmp_path / f'{name} out', workers=1)
        assert contents(tmp_path / f'{name} out') == {
            name: (source / name).read_bytes() for name in NAMES
        }
        assert not list((tmp_path / f'{name} out').glob('*source*'))


def test_reduced(source, tmp_path):
    """Shorter sides are 60, smaller images unchanged, lossless formats become JPEG."""
    prepare(Plan(str(source), size=60), tmp_path / 'out', workers=1)
    found = contents(tmp_path / 'out')
    assert EncodedImage(found['a/000.jpg']).size == (60, 80)
    assert found['b/deep/000.jpg'] == (source / 'b/deep/000.jpg').read_bytes()
    red = EncodedImage(found['b/red.jpg'], 'rgb').pixels().astype(int)
    assert red.shape == (60, 60, 3) and np.abs(red - [250, 20, 20]).max() <= 3
    reference = Image.open(source / 'a/000.jpg').resize((80, 60), Image.Resampling.BICUBIC)
    difference = EncodedImage(found['a/000.jpg'], 'rgb').pixels().astype(int) - np.asarray(
        reference
    )
    assert np.abs(difference).mean() < 2


def test_labels_beside_images_stay(source, tmp_path):
    """Labels in members of a tar file are kept, for reduced and unchanged images."""
    with tarfile.open(tmp_path / 'a.tar', 'w') as file:
        for number, name in enumerate(
            ('a/000.jpg', 'b/red.png', 'a/001.jpg', 'a/002.jpg', 'b/deep/000.jpg')
        ):
            file.add(source / name, f'{number:03d}.{name[-3:]}')
            label = [b'cat', b'{"label": "dog"}', b'cat', b'{"caption": "none"}', b'\xff\n']
            (tmp_path / 'label').write_bytes(label[number])
            file.add(tmp_path / 'label', f'{number:03d}.{"json" if number % 2 else "cls"}')
    for size in (None, 60):
        prepare(
            Plan(str(tmp_path / 'a.tar'), size=size, per_shard=2),
            tmp_path / f'out {size}',
            workers=1,
        )
        found = contents(tmp_path / f'out {size}')
        kept = {name: data for name, data in found.items() if name.endswith('cls')}
        assert kept == {'000.cls': b'cat', '001.cls': b'dog', '002.cls': b'cat'}
        assert (
            list(found)[2:4] == [f'001.{"jpg" if size else "png"}', '001.cls'] and len(found) == 8
        )
    some = IndexedImages(
        str(tmp_path / 'out 60'), 'shard-00000.tar', with_label=True, index_dir=str(tmp_path)
    )
    assert [some.get_data_info(i)['gt_label'] for i in range(2)] == [0, 1] and some.CLASSES == (
        'cat',
        'dog',
    )


def test_images_of_any_bands_stay_as_they_are(tmp_path):
    """All images that training reads unchanged are kept unless reduced; damaged ones are not."""
    folder = tmp_path / 'in'
    folder.mkdir()
    bands = np.arange(20 * 30 * 13, dtype=np.uint16).reshape(20, 30, 13)
    tifffile.imwrite(folder / 'bands.tif', bands, photometric='minisblack', planarconfig='contig')
    (folder / 'damaged.tif').write_bytes((folder / 'bands.tif').read_bytes()[:5000])
    Image.fromarray(bands[..., 0].astype(np.float32)).save(folder / 'float.tif')
    np.save(folder / 'array.npy', bands)
    plan = Plan(str(folder), extensions=('.TIF', '.npy'))
    manifest = prepare(plan, tmp_path / 'out', workers=1)
    kept = {name: (folder / name).read_bytes() for name in ('array.npy', 'bands.tif', 'float.tif')}
    assert contents(tmp_path / 'out') == kept
    assert [image['name'] for image in manifest['skipped']] == ['damaged.tif']
    load = dict(type='LoadCenterCrop', scale=(20, 30), crop_ratio=1, color_type='unchanged')
    dataset = IndexedImages(
        str(tmp_path / 'out'), extensions=plan.extensions, index_dir=str(tmp_path), pipeline=[load]
    )
    assert np.array_equal(dataset[0]['img'], bands) and np.array_equal(dataset[1]['img'], bands)
    reduced = prepare(
        Plan(str(folder), size=8, extensions=['.tif', '.npy']), tmp_path / 'reduced', workers=1
    )
    assert reduced['images'] == 0 and len(reduced['skipped']) == 4


def test_rotation_is_applied_when_reduced_and_kept_when_not(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    (tmp_path / 'in').mkdir()
    Image.new('RGB', (120, 90)).save(tmp_path / 'in' / 'a.jpg', exif=exif)
    for size in (None, 60):
        prepare(Plan(str(tmp_path / 'in'), size=size), tmp_path / str(size), workers=1)
        (data,) = contents(tmp_path / str(size)).values()
        assert EncodedImage(data).size == ((120, 90) if size is None else (80, 60))


@pytest.mark.slow
def test_goes_on_after_a_kill(source, tmp_path):
    """After SIGKILL of the process group, finished shards stay, and the result is a whole run's."""
    big = tmp_path / 'big'
    for i in range(60):
        shutil.copytree(source, big / f'{i:02d}')
    command = [
        'tools/prepare_dataset.py',
        big,
        tmp_path / 'out',
        '--per-shard',
        30,
        '--size',
        60,
        '--workers',
        2,
    ]
    process = subprocess.Popen(
        [sys.executable, *map(str, command)], cwd=ROOT, start_new_session=True
    )
    deadline = time.monotonic() + 120
    while (
        len(list((tmp_path / 'out' / 'parts').glob('000*.json'))) < 4
        and time.monotonic() < deadline
    ):
        time.sleep(0.002)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    finished = {
        path.stem: (tmp_path / 'out' / f'shard-{path.stem}.tar').stat().st_mtime_ns
        for path in (tmp_path / 'out' / 'parts').glob('000*.json')
    }
    assert 4 <= len(finished) < 26 and not (tmp_path / 'out' / 'manifest.json').exists()
    printed = run(*command).stdout
    assert '720 images' in printed and '60 left out' in printed and 'and 40 more' in printed
    for stem, written in finished.items():
        assert (tmp_path / 'out' / f'shard-{stem}.tar').stat().st_mtime_ns == written
    whole = prepare(Plan(str(big), per_shard=30, size=60), tmp_path / 'whole', workers=2)
    assert whole == json.loads((tmp_path / 'out' / 'manifest.json').read_text())
    assert not list((tmp_path / 'out').glob('*part*'))
    # Another call changes nothing.
    assert prepare(Plan(str(big), per_shard=30, size=60), tmp_path / 'out') == whole


@pytest.mark.parametrize(
    ('settings', 'kind', 'message'),
    [
        (dict(source='/absent'), FileNotFoundError, 'there is no folder or archive /absent'),
        (dict(size=0), ValueError, 'size=0 is out of range'),
        (dict(quality=101), ValueError, 'quality=101 is out of range'),
        (dict(per_shard=0), ValueError, 'per_shard=0 is out of range'),
        (dict(inside='absent'), FileNotFoundError, 'absent'),
    ],
)
def test_wrong_plans(source, tmp_path, settings, kind, message):
    with pytest.raises(kind, match=message):
        prepare(Plan(**{'source': str(source), **settings}), tmp_path / 'out', workers=1)


def test_nothing_is_overwritten(source, tmp_path):
    (tmp_path / 'file').write_text('precious')
    with pytest.raises(ValueError, match='is not empty; choose a new folder'):
        prepare(Plan(str(source)), tmp_path)
    prepare(Plan(str(source)), tmp_path / 'out', workers=1)
    with pytest.raises(ValueError, match='was begun with another plan'):
        prepare(Plan(str(source), size=32), tmp_path / 'out')


def test_a_source_that_has_changed_is_refused(source, tmp_path):
    shutil.copytree(source, tmp_path / 'in')
    plan = Plan(str(tmp_path / 'in'))
    prepare(plan, tmp_path / 'out', workers=1)
    # The state before the end of a first run.
    (tmp_path / 'out' / 'manifest.json').unlink()
    (tmp_path / 'out' / 'parts').mkdir()
    (tmp_path / 'out' / 'parts' / 'names.json').write_text('"other"\n')
    with pytest.raises(ValueError, match='holds other images than when'):
        prepare(plan, tmp_path / 'out')


def test_errors_of_the_tool(source, tmp_path):
    done = run('tools/prepare_dataset.py', source / 'a' / 'notes.txt', tmp_path / 'out', fails=True)
    assert (
        done.stderr.count('\n') == 1
        and 'notes.txt cannot be read as an uncompressed tar file' in done.stderr
    )


def test_two_at_once(source, tmp_path):
    """Both wrote the same temporary files, and each checksummed the other's output."""
    target = tmp_path / 'out'
    target.mkdir()
    other = FileLock(target / '.prepare.lock')
    other.acquire()
    with pytest.raises(
        ValueError,
        match=rf'process {os.getpid()} on \S+ is writing to {target} already; wait until',
    ):
        prepare(Plan(str(source)), target, workers=1)
    other.release()
    manifest = prepare(Plan(str(source), per_shard=5), target, workers=2)
    for shard in manifest['shards']:
        assert hashlib.sha256((target / shard['file']).read_bytes()).hexdigest() == shard['sha256']
    expected = ['manifest.json', 'plan.json', *(shard['file'] for shard in manifest['shards'])]
    assert sorted(os.listdir(target)) == expected
