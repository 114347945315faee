"""Linear probes: what a linear classifier reads from frozen features.

A gate for encoders: what a probe cannot read, no linear connector can pass on. Multinomial logistic regression on
standardised features with an L2 penalty on the weights and none on the bias, fitted to convergence in float64, which is
the objective of scikit-learn's ``LogisticRegression(C=1 / penalty)``.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from mmbridge.evaluation.bootstrap import Estimate, estimate, ratio


@dataclass(frozen=True, slots=True)
class LinearProbe:
    """A fitted probe: ``mean`` and ``scale`` (D,) of its training features, ``weight`` (C, D), ``bias`` (C,), and the
    ``classes`` (C,) that the rows stand for."""

    mean: Tensor
    scale: Tensor
    weight: Tensor
    bias: Tensor
    classes: Tensor

    def predict(self, features: Tensor) -> Tensor:
        """The likeliest label of each row: (N, D) to (N,)."""
        scores = functional.linear((features.double() - self.mean) / self.scale, self.weight, self.bias)
        return self.classes[scores.argmax(dim=1)]


def fit_probe(features: Tensor, labels: Tensor, *, penalty: float = 1.0, iterations: int = 200) -> LinearProbe:
    """Fits a probe by L-BFGS on ``sum of cross-entropies + penalty / 2 · ‖weight‖²``.

    Args:
        features: (N, D), of any float dtype.
        labels: (N,), integers; any values, at least two different ones.
        penalty: on the squared weights of standardised features; 1/C of scikit-learn.
        iterations: at most so many L-BFGS steps.
    """
    classes, target = torch.unique(labels, return_inverse=True)
    assert len(classes) > 1, "a probe tells at least two labels apart"
    values = features.detach().double()
    mean, scale = values.mean(dim=0), values.std(dim=0, correction=0)
    scale = torch.where(scale > 0, scale, 1.0)  # a constant feature carries nothing and divides by 1
    values = (values - mean) / scale
    weight = torch.zeros(len(classes), values.shape[1], dtype=values.dtype, device=values.device, requires_grad=True)
    bias = torch.zeros(len(classes), dtype=values.dtype, device=values.device, requires_grad=True)
    optimiser = torch.optim.LBFGS(
        [weight, bias], max_iter=iterations, tolerance_grad=1e-7, tolerance_change=1e-12, line_search_fn="strong_wolfe"
    )

    def closure() -> float:
        optimiser.zero_grad()
        loss = functional.cross_entropy(functional.linear(values, weight, bias), target)
        loss = loss + penalty / (2 * len(values)) * weight.square().sum()
        loss.backward()  # type: ignore[no-untyped-call]
        return loss.item()

    with torch.enable_grad():
        optimiser.step(closure)  # type: ignore[no-untyped-call]
    return LinearProbe(mean, scale, weight.detach(), bias.detach(), classes)


def held_out_accuracy(
    features: Tensor,
    labels: Tensor,
    *,
    scenes: Sequence[int] | Tensor | None = None,
    held_out: float = 0.25,
    penalty: float = 1.0,
    seed: int = 0,
) -> Estimate:
    """Accuracy of a probe on scenes it was not fitted to, with an interval over those scenes.

    Args:
        features: (N, D), one row a token or object.
        labels: (N,), integers.
        scenes: (N,), which scene each row comes from; a scene is wholly on one side. Each row its own by default.
        held_out: the share of scenes held out.
        penalty: as in ``fit_probe``.
        seed: of the split.
    """
    scene = np.arange(len(labels)) if scenes is None else np.asarray(scenes)
    names, which = np.unique(scene, return_inverse=True)
    order = np.random.default_rng(seed).permutation(len(names))
    count = round(held_out * len(names))
    assert 0 < count < len(names), "both sides of the split hold scenes"
    outside = torch.from_numpy(np.isin(which, order[:count])).to(features.device)
    probe = fit_probe(features[~outside], labels[~outside], penalty=penalty)
    right = (probe.predict(features[outside]) == labels[outside]).cpu().numpy()
    held = which[outside.cpu().numpy()]
    sums = np.stack([np.bincount(held, right, len(names)), np.bincount(held, minlength=len(names))], axis=1)
    return estimate(sums[order[:count]], ratio(0, 1))
