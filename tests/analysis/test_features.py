"""Features against mmpretrain's extractor, principal components against scikit-learn, and files."""

import sys

import numpy as np
import pytest
import torch
from mae_plugin.analysis.features import pooled_features, principal_components
from mae_plugin.apis import FeatureInferencer, save_features
from mmpretrain import FeatureExtractor, get_model
from sklearn.decomposition import PCA

from ..conftest import write_jpegs
from ..test_api import BIRD, build
from .test_images import preprocessor


@pytest.fixture
def model(build_tiny):
    result = build_tiny()
    result.data_preprocessor = preprocessor()
    return result


def test_pools_of_a_pretraining_model(tmp_path):
    """The tokens of mmpretrain's extractor, pooled by hand; in batches and one by one."""
    write_jpegs(tmp_path, 2)
    model = build('mae_vit-base-p16_8xb512-amp-coslr-300e_in1k')
    tokens = torch.stack(
        [features for (features,) in FeatureExtractor(model)([BIRD, str(tmp_path / '001.jpg')])]
    )
    ours = FeatureInferencer(model)
    images = [BIRD, tmp_path / '001.jpg']
    for pool, expected in (
        ('mean', tokens[:, 1:].mean(1)),
        ('cls', tokens[:, 0]),
        ('tokens', tokens[:, 1:]),
    ):
        np.testing.assert_allclose(
            ours(images, pool=pool, batch_size=2), expected, rtol=0, atol=1e-5
        )
    with pytest.raises(ValueError, match="pool='max' is none of mean, cls, tokens"):
        ours(images, pool='max')


def test_models_that_pool_by_themselves():
    model = build('vit-base-p16_mae-300e-pre_8xb128-coslr-100e_in1k')
    expected = FeatureExtractor(model)(BIRD)[0][0]
    ours = FeatureInferencer(model)
    np.testing.assert_allclose(ours(BIRD)[0], expected, rtol=0, atol=1e-5)
    with pytest.raises(ValueError, match='ImageClassifier gives one vector for an image'):
        ours(BIRD, pool='tokens')


def test_feature_maps():
    """A ResNet has neither tokens nor a class token; its feature is the mean over its map."""
    model = get_model('resnet18_8xb32_in1k', neck=None)
    images = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        expected = model.eval().backbone(images)[-1]
        torch.testing.assert_close(pooled_features(model, images), expected.mean(dim=(2, 3)))
        with pytest.raises(ValueError, match="ImageClassifier has no class token; use pool='mean'"):
            pooled_features(model, images, 'cls')


def test_principal_components():
    """Equal to scikit-learn's up to the sign, which makes the largest entry positive."""
    random = np.random.default_rng(0)
    tokens = random.normal(size=(200, 6)) * [1, 5, 3, 0.5, 2, 0.1] + 7
    reference = PCA(3).fit(tokens)
    sign = np.sign([row[np.abs(row).argmax()] for row in reference.components_])
    ours = principal_components(torch.from_numpy(tokens))
    np.testing.assert_allclose(ours, reference.transform(tokens) * sign, rtol=0, atol=1e-5)


def test_colors_of_patches(model):
    images = [
        np.random.default_rng(i).integers(0, 256, (32, 32, 3), dtype=np.uint8) for i in range(3)
    ]
    pictures, colors = FeatureInferencer(model, channel_order='rgb').color_patches(
        images, batch_size=2
    )
    assert all(
        np.array_equal(picture, image) for picture, image in zip(pictures, images, strict=True)
    )
    assert [color.shape for color in colors] == [(4, 4, 3)] * 3
    # The first and the last hundredth of each component, over all images together, are black and
    # white.
    together = np.stack(colors).reshape(-1, 3)
    assert (together.min(0) == 0).all() and (together.max(0) == 255).all()


def test_files(tmp_path, monkeypatch):
    features, files = (
        np.random.default_rng(0).normal(size=(2, 5)).astype(np.float32),
        ['a.jpg', 'deep/b.jpg'],
    )
    path = tmp_path / 'new' / 'features.npz'
    save_features(path, features, files)
    with np.load(path) as stored:
        assert np.array_equal(stored['features'], features) and stored['files'].tolist() == files
    with pytest.raises(ValueError, match=r'features\.npz exists already; .* force=True'):
        save_features(path, features, files)
    save_features(path, features + 1, files, force=True)
    with np.load(path) as stored:
        assert np.array_equal(stored['features'], features + 1)
    with pytest.raises(ValueError, match=r'features\.csv must end in one of these'):
        save_features(tmp_path / 'features.csv', features, files)
    monkeypatch.setitem(sys.modules, 'pyarrow', None)
    with pytest.raises(ValueError, match=r'features\.parquet needs pyarrow: pip install pyarrow'):
        save_features(tmp_path / 'features.parquet', features, files)


def test_parquet(tmp_path):
    parquet = pytest.importorskip(
        'pyarrow.parquet', reason='needs pyarrow, which the onedl stack lacks'
    )
    features, files = (
        np.random.default_rng(0).normal(size=(2, 5)).astype(np.float32),
        ['a.jpg', 'b.jpg'],
    )
    save_features(tmp_path / 'features.parquet', features, files)
    table = parquet.read_table(tmp_path / 'features.parquet').to_pydict()
    assert table['file'] == files and np.array_equal(
        np.array(table['feature'], np.float32), features
    )
