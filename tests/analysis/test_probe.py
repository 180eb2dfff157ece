"""Nearest neighbors and linear classifier against scikit-learn, in one process and in two."""

import multiprocessing

import numpy as np
import pytest
import torch
from mae_plugin.analysis.probe import LinearClassifier, knn_predict
from sklearn.linear_model import LogisticRegression
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler


def features(classes: int, dtype: torch.dtype = torch.double) -> tuple[torch.Tensor, ...]:
    """Overlapping clusters: 301 labeled features, 200 queries. One feature is constant."""
    generator = torch.Generator().manual_seed(classes)
    centers = torch.randn(classes, 12, generator=generator)
    labels, truth = (
        torch.randint(classes, (number,), generator=generator) for number in (301, 200)
    )
    bank, queries = (
        (centers[of] + 1.5 * torch.randn(len(of), 12, generator=generator) + 2)
        * torch.arange(1, 13)
        for of in (labels, truth)
    )
    bank[:, 3] = queries[:, 3] = 5
    return bank.to(dtype), labels, queries.to(dtype), truth


@pytest.mark.parametrize('k', [1, 5, 20, 300, 1000])
@pytest.mark.parametrize('classes', [2, 7])
def test_nearest_neighbors(k, classes):
    """Equal classes for all queries: few and many neighbors, ties in the vote, k above the bank."""
    bank, labels, queries, truth = features(classes)
    reference = KNeighborsClassifier(min(k, len(bank)), metric='cosine').fit(
        bank.numpy(), labels.numpy()
    )
    predicted = knn_predict(bank, labels, queries, classes, k)
    assert np.array_equal(predicted, reference.predict(queries.numpy()))
    assert (predicted == truth).double().mean() == reference.score(queries.numpy(), truth.numpy())
    if k == 20:
        assert 0.3 < reference.score(queries.numpy(), truth.numpy()) < 0.99


def sklearns(bank, labels, strength):
    scaler, model = StandardScaler(), LogisticRegression(C=strength, tol=1e-12, max_iter=100_000)
    return make_pipeline(scaler, model).fit(bank.numpy(), labels.numpy())


@pytest.mark.parametrize('strength', [0.01, 1.0, 100.0])
@pytest.mark.parametrize('classes', [2, 7])
def test_linear_classifier(strength, classes):
    """Equal weights, bias and probabilities; for two classes, scikit-learn has their difference."""
    bank, labels, queries, _ = features(classes)
    reference = sklearns(bank, labels, strength)
    ours = LinearClassifier(bank, labels, classes, strength, tolerance=1e-9)
    weight, bias = (
        (ours.weight, ours.bias) if classes > 2 else (ours.weight.diff(dim=0), ours.bias.diff())
    )
    np.testing.assert_allclose(weight, reference[-1].coef_, rtol=0, atol=1e-5)
    np.testing.assert_allclose(bias, reference[-1].intercept_, rtol=0, atol=1e-5)
    np.testing.assert_allclose(
        ours(queries).softmax(1), reference.predict_proba(queries.numpy()), rtol=0, atol=1e-5
    )
    assert np.array_equal(ours(queries).argmax(1), reference.predict(queries.numpy()))
    assert ours.steps < 1000


@pytest.mark.parametrize('classes', [2, 7])
def test_in_float32(classes):
    """In the probe's precision, accuracies are equal and coefficients agree to a thousandth."""
    bank, labels, queries, truth = features(classes, torch.float32)
    reference = sklearns(bank.double(), labels, 1.0)
    ours = LinearClassifier(bank, labels, classes)
    weight = ours.weight if classes > 2 else ours.weight.diff(dim=0)
    np.testing.assert_allclose(weight, reference[-1].coef_, rtol=0, atol=1e-3)
    accuracy = (ours(queries).argmax(1) == truth).double().mean()
    assert accuracy == reference.score(queries.double().numpy(), truth.numpy())
    neighbors = KNeighborsClassifier(20, metric='cosine').fit(bank.numpy(), labels.numpy())
    assert np.array_equal(
        knn_predict(bank, labels, queries, classes), neighbors.predict(queries.numpy())
    )


def process(rank: int, folder: str) -> None:
    """Runs one of two processes, which holds every second feature of a bank of odd size."""
    from mae_plugin.engine.loops.probe import _all_shares, _without_padding
    from mmengine.dataset import DefaultSampler

    torch.set_num_threads(1)
    torch.distributed.init_process_group(
        'gloo', init_method=f'file://{folder}/store', rank=rank, world_size=2
    )
    numbers = torch.arange(301)
    loader = torch.utils.data.DataLoader(
        numbers, 64, sampler=DefaultSampler(numbers, shuffle=False)
    )
    share = torch.cat(list(loader))
    own, everyones = _without_padding(share, loader), _all_shares(share, loader)
    bank, labels, queries, _ = features(7)
    linear = LinearClassifier(bank[own], labels[own], 7, tolerance=1e-9)
    neighbors = [knn_predict(bank[own], labels[own], queries, 7, k) for k in (5, 200, 1000)]
    torch.save(
        dict(own=own, everyones=everyones, weight=linear.weight, knn=neighbors),
        f'{folder}/{rank}.pt',
    )


def test_two_processes(tmp_path):
    """Every feature is in one of the shares, and both processes get the result of one process."""
    context = multiprocessing.get_context('fork')
    processes = [context.Process(target=process, args=(rank, str(tmp_path))) for rank in range(2)]
    for one in processes:
        one.start()
    for one in processes:
        one.join(120)
        assert one.exitcode == 0
    found = [torch.load(tmp_path / f'{rank}.pt') for rank in range(2)]
    assert sorted(found[0]['own'].tolist() + found[1]['own'].tolist()) == list(range(301))
    bank, labels, queries, _ = features(7)
    linear = LinearClassifier(bank, labels, 7, tolerance=1e-9)
    for one in found:
        assert torch.equal(one['everyones'], torch.arange(301))
        torch.testing.assert_close(one['weight'], linear.weight, rtol=0, atol=1e-6)
        for k, predicted in zip((5, 200, 1000), one['knn'], strict=True):
            assert torch.equal(predicted, knn_predict(bank, labels, queries, 7, k))
