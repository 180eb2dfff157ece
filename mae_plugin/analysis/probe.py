"""Probes of frozen features: nearest neighbors and a linear classifier.

Both run on the device of the features. With several processes, each holds a share of the labeled
features, and no process holds all of them.
"""

from __future__ import annotations

import torch
from mmengine.dist import all_gather, all_reduce
from torch import Tensor, nn


def knn_predict(
    bank: Tensor, labels: Tensor, queries: Tensor, num_classes: int, k: int = 20
) -> Tensor:
    """Classifies each query by a vote of its ``k`` most similar features (cosine similarity).

    All votes have equal weight, and ties go to the first class. This equals scikit-learn's
    ``KNeighborsClassifier(k, metric='cosine')``.

    Args:
        bank: (N, D), this process's share of the labeled features.
        labels: (N,), their classes.
        queries: (Q, D), the same in all processes.
        num_classes: number of classes.
        k: number of neighbors; the whole bank if it has fewer features.

    Returns:
        (Q,) classes, the same in all processes.
    """
    bank, queries = nn.functional.normalize(bank), nn.functional.normalize(queries)
    missing = max(0, k - len(bank))
    predicted = []
    # Blocks of queries bound the memory of the similarities.
    for block in queries.split(1024):
        nearest = (block @ bank.T).topk(min(k, len(bank)))  # (q, min(k, N))
        # Every process contributes k candidates. Padding has the lowest possible similarity.
        similarity = nn.functional.pad(nearest.values, (0, missing), value=-torch.inf)
        label = nn.functional.pad(labels[nearest.indices], (0, missing))
        similarity = torch.cat(all_gather(similarity), dim=1)  # (q, k * processes)
        label = torch.cat(all_gather(label), dim=1)
        best = similarity.topk(k)  # (q, k)
        votes = nn.functional.one_hot(label.gather(1, best.indices), num_classes)
        # Padding among the best, if the whole bank is smaller than k, has no vote.
        votes = votes * best.values.isfinite().unsqueeze(-1)  # (q, k, num_classes)
        predicted.append(votes.sum(dim=1).argmax(dim=1))
    return torch.cat(predicted)


class LinearClassifier:
    """Multinomial logistic regression on standardized features, solved to convergence by L-BFGS.

    Minimizes the sum of the cross-entropies plus ``|weight|² / (2 * strength)``, without a penalty
    on the bias. This equals scikit-learn's ``LogisticRegression(C=strength)`` after
    ``StandardScaler``.

    Args:
        features: (N, D), this process's share of the labeled features.
        labels: (N,), their classes.
        num_classes: number of classes.
        strength: inverse of the penalty's weight.
        tolerance: largest gradient of the mean loss at which the problem counts as solved.
        max_iter: largest number of steps.

    Attributes:
        mean: (D,), mean of all features.
        std: (D,), standard deviation of all features; 1 for constant ones.
        weight: (num_classes, D).
        bias: (num_classes,).
        steps: number of steps taken; ``max_iter`` if the solver did not converge.
    """

    def __init__(
        self,
        features: Tensor,
        labels: Tensor,
        num_classes: int,
        strength: float = 1.0,
        tolerance: float = 1e-5,
        max_iter: int = 1000,
    ) -> None:
        total = _sum(features.new_tensor(len(features)))
        self.mean = _sum(features.sum(dim=0)) / total
        std = (_sum((features - self.mean).square().sum(dim=0)) / total).sqrt()
        self.std = torch.where(std > 0, std, 1)
        self.weight = features.new_zeros(num_classes, features.shape[1], requires_grad=True)
        self.bias = features.new_zeros(num_classes, requires_grad=True)
        # For two classes, scikit-learn has one weight vector, the difference of both, whose square
        # is twice the sum of squares here.
        penalty = (2 if num_classes == 2 else 1) / (strength * total)
        solver = torch.optim.LBFGS(
            [self.weight, self.bias],
            max_iter=max_iter,
            max_eval=2 * max_iter,
            history_size=20,
            tolerance_grad=tolerance,
            tolerance_change=0,
            line_search_fn='strong_wolfe',
        )
        # Blocks of features bound the memory of the logits.
        blocks = list(zip(features.split(2**16), labels.split(2**16), strict=True))

        @torch.enable_grad()
        def objective() -> Tensor:
            """Returns the loss of all processes, and sets its gradients."""
            solver.zero_grad()
            loss = features.new_zeros(())
            for block, classes in blocks:
                entropy = nn.functional.cross_entropy(self(block), classes, reduction='sum')
                part = entropy / total
                part.backward()
                loss += part.detach()
            for tensor in (loss, self.weight.grad, self.bias.grad):
                all_reduce(tensor)
            # The penalty is the same in all processes, so it is added after the reduction.
            weight = self.weight.detach()
            self.weight.grad += penalty * weight
            return loss + penalty / 2 * weight.square().sum()

        solver.step(objective)
        self.steps = solver.state[self.weight]['n_iter']
        self.weight, self.bias = self.weight.detach(), self.bias.detach()

    def __call__(self, features: Tensor) -> Tensor:
        """Returns the logits (N, num_classes) of features (N, D)."""
        return nn.functional.linear((features - self.mean) / self.std, self.weight, self.bias)


def _sum(tensor: Tensor) -> Tensor:
    """Sums a tensor over all processes, in place."""
    all_reduce(tensor)
    return tensor
