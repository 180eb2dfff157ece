"""The tools that draw and extract: a checkpoint, none, folders, patterns, wrong arguments."""

import json
import runpy
import sys

import numpy as np
import pytest
import torch
from mae_plugin import reconstruct_image
from mmengine.config import Config
from mmpretrain import get_model
from PIL import Image

from .conftest import PRETRAIN, ROOT, tiny_config, write_jpegs
from .test_tools import error_of

NAME = 'mae_vit-base-p16_8xb512-amp-coslr-300e_in1k'


@pytest.fixture(scope='module')
def root(tmp_path_factory):
    """A tiny model's config.py and weights.pth, four JPEGs in images/, and a run's log in run/."""
    root = tmp_path_factory.mktemp('look')
    config = Config.fromfile(ROOT / PRETRAIN)
    config.model = dict(tiny_config(), data_preprocessor=config.model.data_preprocessor)
    config.test_dataloader.dataset.pipeline[0].scale = 32
    config.dump(root / 'config.py')
    torch.manual_seed(0)
    torch.save(get_model(config).state_dict(), root / 'weights.pth')
    write_jpegs(root / 'images', 3)
    write_jpegs(root / 'images' / 'deep', 1, seed=1)
    (root / 'text.jpg').write_text('not an image')
    Image.new('RGB', (4, 50)).save(root / 'small.png')
    log = root / 'run' / '20260101_000000' / 'vis_data' / 'scalars.json'
    log.parent.mkdir(parents=True)
    log.write_text(
        ''.join(json.dumps(dict(step=i, loss=1 / i, lr=i / 10)) + '\n' for i in range(1, 20))
    )
    return root


def call(capfd, *arguments: object) -> str:
    """Returns the output of a tool, run in this process."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, 'argv', [str(ROOT / arguments[0]), *map(str, arguments[1:])])
        runpy.run_path(sys.argv[0], run_name='__main__')
    return capfd.readouterr().out


def test_reconstruct(root, tmp_path, capfd):
    """One figure of four images; losses as from Python; two pages; several ratios as columns."""
    model = [root / 'config.py', root / 'weights.pth']
    printed = call(
        capfd, 'tools/reconstruct.py', *model, root / 'images', '--out', tmp_path / 'new'
    )
    assert str(tmp_path / 'new' / 'reconstruction.png') in printed
    files = sorted((root / 'images').rglob('*.jpg'))
    results = reconstruct_image(
        str(root / 'config.py'), files, str(root / 'weights.pth'), batch_size=8
    )
    for result in results:
        assert f'{result.loss:.4f}' in printed
    with Image.open(tmp_path / 'new' / 'reconstruction.png') as image:
        assert image.width == pytest.approx(image.height, rel=0.1)
    ratios = [
        '--mask-ratio',
        0.5,
        0.75,
        '--rows',
        3,
        '--show',
        'masked',
        'reconstruction',
        '--format',
        'pdf',
        '--seed',
        5,
        '--use-ground-truth-stats',
    ]
    printed = call(
        capfd, 'tools/reconstruct.py', *model, f'{root}/images/**/*.jpg', '--out', tmp_path, *ratios
    )
    assert sorted(path.name for path in tmp_path.glob('*.pdf')) == [
        'reconstruction_001.pdf',
        'reconstruction_002.pdf',
    ]
    assert printed.count('50%') == printed.count('75%') == len(files)


def test_extract_features(root, tmp_path, capfd):
    arguments = [
        root / 'config.py',
        'None',
        root / 'images',
        root / 'images' / '001.jpg',
        '--pool',
        'cls',
    ]
    printed = call(
        capfd,
        'tools/extract_features.py',
        *arguments,
        '--out',
        tmp_path / 'f.npz',
        '--pca',
        tmp_path / 'pca.png',
    )
    assert '32 features of 5 images' in printed
    with np.load(tmp_path / 'f.npz') as stored:
        assert stored['features'].shape == (5, 32)
        assert stored['files'][-1] == str(root / 'images' / '001.jpg')
        np.testing.assert_allclose(stored['features'][-1], stored['features'][1], rtol=0, atol=1e-6)
        assert np.abs(stored['features'][0] - stored['features'][1]).max() > 1e-3
    with Image.open(tmp_path / 'pca.png') as image:
        assert image.width / image.height == pytest.approx(5 / 2, rel=0.1)


def test_plot_log(root, tmp_path, capfd):
    call(capfd, 'tools/plot_log.py', root / 'run', root / 'run', '--out', tmp_path / 'curves.png')
    with Image.open(tmp_path / 'curves.png') as image:
        assert image.width > 2000


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        (
            ['reconstruct', 'no.py', 'None', '{root}/images', '--out', '{new}'],
            'there is no config no.py',
        ),
        (['reconstruct', 'no-model', 'None', '{root}/images', '--out', '{new}'], 'no-model'),
        (
            ['reconstruct', '{root}/config.py', '{root}/images', '--out', '{new}'],
            'or None for the model as it is built',
        ),
        (
            ['reconstruct', '{root}/config.py', 'no.pth', '{root}/images', '--out', '{new}'],
            "no checkpoint 'no.pth'",
        ),
        (
            ['reconstruct', '{root}/config.py', '{root}/weights.pth', '--out', '{new}'],
            'name images, too',
        ),
        (
            ['reconstruct', '{root}/config.py', 'None', '{root}/no.jpg', '--out', '{new}'],
            'with matches {root}/no.jpg',
        ),
        (
            ['reconstruct', '{root}/config.py', 'None', '{root}/text.jpg', '--out', '{new}'],
            'cannot be read as an image',
        ),
        (
            ['reconstruct', '{root}/config.py', 'None', '{root}/small.png', '--out', '{new}'],
            'is too small: 50 x 4',
        ),
        (
            [
                'reconstruct',
                '{root}/config.py',
                'None',
                '{root}/images',
                '--out',
                '{new}',
                '--rows',
                '0',
            ],
            '--rows: 0 is no whole',
        ),
        (
            [
                'reconstruct',
                '{root}/config.py',
                'None',
                '{root}/images',
                '--out',
                '{new}',
                '--mask-ratio',
                '75',
            ],
            'mask_ratio=75.0 is out of range',
        ),
        (
            [
                'reconstruct',
                '{root}/config.py',
                'None',
                '{root}/images',
                '--out',
                '{new}',
                '--bands',
                '0',
                '1',
                '9',
            ],
            'bands=(0, 1, 9) are not three of the channels 0 to 2',
        ),
        (
            ['extract_features', NAME, 'None', '{root}/images', '--out', '{new}.txt'],
            'must end in one of these',
        ),
        (['plot_log', '{root}/images', '--out', '{new}.png'], 'holds no log of a run'),
        (
            ['plot_log', '{root}/run', '--keys', 'los', '--out', '{new}.png'],
            "no run has logged 'los'; there is loss, lr",
        ),
        (['plot_log', '{root}/run', '--out', '{new}.doc'], 'is no name for a picture'),
    ],
)
def test_errors_are_one_sentence(capfd, root, tmp_path, arguments, message):
    tool, *arguments = [argument.format(root=root, new=tmp_path / 'new') for argument in arguments]
    error = error_of(capfd, f'tools/{tool}.py', *arguments)
    assert message.format(root=root) in error
    assert not (tmp_path / 'new').exists()


def test_nothing_is_overwritten(root, tmp_path, capfd):
    (tmp_path / 'reconstruction.png').write_text('mine')
    arguments = [
        'tools/reconstruct.py',
        root / 'config.py',
        'None',
        root / 'images',
        '--out',
        tmp_path,
    ]
    assert 'reconstruction.png exists already' in error_of(capfd, *arguments)
    assert (tmp_path / 'reconstruction.png').read_text() == 'mine'
    call(capfd, *arguments, '--force')
    assert (tmp_path / 'reconstruction.png').stat().st_size > 10_000
