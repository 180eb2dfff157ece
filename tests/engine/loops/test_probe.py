"""Tests a pre-training run with a probe against scikit-learn."""

import copy
import json
import re

import numpy as np
import pytest
from mae_plugin.apis import FeatureInferencer, find_images
from mmengine.config import Config
from mmpretrain import get_model
from sklearn.linear_model import LogisticRegression
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from ...conftest import ROOT, write_jpegs
from .test_train import assert_identical, train

PROBE = ROOT / 'configs/mae/mae_vit-base-p16_8xb512-amp-coslr-300e_in1k-probe.py'


@pytest.fixture(scope='module')
def labelled(tmp_path_factory):
    """Writes three classes of images in train/ and val/."""
    root = tmp_path_factory.mktemp('labelled')
    for i in range(3):
        write_jpegs(root / 'train' / f'class {i}', 12, seed=i)
        write_jpegs(root / 'val' / f'class {i}', 7, seed=10 + i)
    return root


@pytest.fixture(scope='module')
def settings(labelled, tmp_path_factory):
    """Returns the settings of the documentation, with the generated images."""
    (snippet,) = re.findall(
        r'```python\n(_base_ = .*?)```', (ROOT / 'docs/visualize.md').read_text(), re.DOTALL
    )
    path = tmp_path_factory.mktemp('config') / 'config.py'
    path.write_text(
        snippet.replace("_base_ = '", f"_base_ = '{ROOT}/configs/mae/").replace(
            '/my/images', str(labelled)
        )
    )
    config = Config.fromfile(path)
    loader = config.val_dataloader
    loader.update(batch_size=4, num_workers=0)
    loader.dataset.pipeline[0].scale = 32

    def make(**changes) -> dict:
        return {
            'val_dataloader': copy.deepcopy(loader),
            'val_cfg': {**config.val_cfg, 'k': 5, 'pool': 'cls', **changes},
            'val_evaluator': config.val_evaluator,
            'train_cfg.val_interval': config.train_cfg.val_interval // 20,
            'default_hooks.checkpoint.save_best': config.default_hooks.checkpoint.save_best,
        }

    return make


@pytest.mark.parametrize('bank_size', [None, 10])
def test_numbers_are_scikit_learns(images, labelled, settings, tmp_path, bank_size):
    """Extracts features from the checkpoint in another way; the probe leaves training unchanged."""
    options = settings(bank_size=bank_size)
    losses, weights = train(images, tmp_path / 'with', interval=10, **options)
    (file,) = (tmp_path / 'with').glob('*/vis_data/scalars.json')
    records = [json.loads(line) for line in file.read_text().splitlines() if 'probe' in line]
    assert [record['step'] for record in records] == [1, 2]

    config = Config.fromfile(next((tmp_path / 'with').glob('*/vis_data/config.py')))
    config.test_dataloader = config.val_dataloader
    inferencer = FeatureInferencer(get_model(config), str(tmp_path / 'with' / 'iter_10.pth'))
    files = [find_images(labelled / part) for part in ('train', 'val')]
    if bank_size:
        files[0] = [files[0][i * 36 // 10] for i in range(10)]
    (bank, queries), (labels, truth) = (
        [inferencer(paths, pool='cls') for paths in files],
        [[path.parent.name for path in paths] for paths in files],
    )
    knn = KNeighborsClassifier(5, metric='cosine').fit(bank, labels)
    linear = make_pipeline(StandardScaler(), LogisticRegression(tol=1e-10, max_iter=10_000)).fit(
        bank, labels
    )
    assert records[1]['probe/knn_top1'] == pytest.approx(100 * knn.score(queries, truth))
    assert records[1]['probe/linear_top1'] == pytest.approx(100 * linear.score(queries, truth))

    best = 1 + int(np.argmax([record['probe/knn_top1'] for record in records]))
    assert [path.name for path in (tmp_path / 'with').glob('best*')] == [
        f'best_probe_knn_top1_iter_{5 * best}.pth'
    ]
    log = next((tmp_path / 'with').glob('*/*.log')).read_text()
    assert (
        f'Probed 21 images with a bank of {bank_size or 36} in ' in log
        and ' s per epoch; the linear' in log
    )

    if bank_size is None:
        without, same = train(images, tmp_path / 'without')
        assert losses == without
        assert_identical(weights, same)


def test_bad_settings(images, settings, tmp_path):
    unlabelled = settings()
    unlabelled['val_dataloader']['dataset']['with_label'] = False
    with pytest.raises(
        ValueError, match='have no labels, which a probe needs; set with_label=True'
    ):
        train(images, tmp_path, **unlabelled)
    with pytest.raises(ValueError, match="pool='max' is not one of"):
        train(images, tmp_path, **settings(pool='max'))


def test_config():
    config = Config.fromfile(PROBE)
    assert config.train_cfg == dict(type='ResumableEpochLoop', max_epochs=300, val_interval=20)
    assert config.val_dataloader.dataset.pipeline == config.test_dataloader.dataset.pipeline
    assert {**config.val_dataloader.dataset, **config.val_cfg.bank}['split'] == 'train'
    assert config.default_hooks.checkpoint.save_best == 'probe/knn_top1'
