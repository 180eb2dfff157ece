"""How much of a labelling frozen features give away: nearest neighbours and a linear classifier.

Computed where the features are; with several processes each holds a share of the labelled features,
and none of them ever all.
"""

from __future__ import annotations

import torch
from mmengine.dist import all_gather, all_reduce
from torch import Tensor, nn


def knn_predict(
    bank: Tensor, labels: Tensor, queries: Tensor, num_classes: int, k: int = 20
) -> Tensor:
    """Classifies each query by a vote of the ``k`` features of the bank that have the largest
    cosine similarity.

    All votes count the same; of classes with equally many, the first wins. That is scikit-learn's
    ``KNeighborsClassifier(k, metric='cosine')``.

    Args:
        bank: (N, D) this process's share of the labelled features.
        labels: (N,) their classes.
        queries: (Q, D), the same in all processes.
        num_classes: number of classes.
        k: number of neighbours; all of the bank if there are fewer.

    Returns:
        (Q,) classes, the same in all processes.
    """
    bank, queries = nn.functional.normalize(bank), nn.functional.normalize(queries)
    missing = max(0, k - len(bank))
    predicted = []
    for some in queries.split(1024):
        near = (some @ bank.T).topk(min(k, len(bank)))
        # Every process brings k candidates; where it has fewer, they are further away than all
        # others.
        similarity = nn.functional.pad(near.values, (0, missing), value=-torch.inf)
        label = nn.functional.pad(labels[near.indices], (0, missing))
        similarity, label = (torch.cat(all_gather(part), dim=1) for part in (similarity, label))
        best = similarity.topk(k)
        votes = nn.functional.one_hot(label.gather(1, best.indices), num_classes)
        predicted.append((votes * best.values.isfinite().unsqueeze(-1)).sum(dim=1).argmax(dim=1))
    return torch.cat(predicted)


class LinearClassifier:
    """Multinomial logistic regression on standardised features, solved to convergence by L-BFGS.

    Minimises the sum of the cross-entropies plus ``|weight|² / (2 * strength)``, without penalty on
    the bias. That is scikit-learn's ``LogisticRegression(C=strength)`` after ``StandardScaler``.

    Args:
        features: (N, D) this process's share of the labelled features.
        labels: (N,) their classes.
        num_classes: number of classes.
        strength: how weak the penalty is.
        tolerance: the gradient of the mean loss at which it is solved.
        max_iter: steps after which it is given up.

    Attributes:
        mean: (D,) of all features.
        std: (D,) of all features; 1 where they do not vary.
        weight: (num_classes, D).
        bias: (num_classes,).
        steps: how many the solution took; ``max_iter`` if it was given up.
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
        # With two classes scikit-learn has one weight vector, their difference, of which the square
        # is twice the sum.
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
        parts = list(zip(features.split(2**16), labels.split(2**16), strict=True))

        @torch.enable_grad()
        def objective() -> Tensor:
            solver.zero_grad()
            loss = features.new_zeros(())
            for some, their_labels in parts:
                part = (
                    nn.functional.cross_entropy(self(some), their_labels, reduction='sum') / total
                )
                part.backward()
                loss += part.detach()
            for tensor in (loss, self.weight.grad, self.bias.grad):
                all_reduce(tensor)
            weight = self.weight.detach()
            self.weight.grad += penalty * weight
            return loss + penalty / 2 * weight.square().sum()

        solver.step(objective)
        self.steps = solver.state[self.weight]['n_iter']
        self.weight, self.bias = self.weight.detach(), self.bias.detach()

    def __call__(self, features: Tensor) -> Tensor:
        """(N, D) -> (N, num_classes) logits."""
        return nn.functional.linear((features - self.mean) / self.std, self.weight, self.bias)


def _sum(tensor: Tensor) -> Tensor:
    all_reduce(tensor)
    return tensor
