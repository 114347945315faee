"""The probe against scikit-learn's logistic regression on the same standardised features."""

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler
from torch import Tensor

from mmbridge.evaluation.probe import fit_probe, held_out_accuracy


def clusters(count: int, seed: int = 0, noise: float = 1.0) -> tuple[Tensor, Tensor]:
    """Four overlapping classes (labels 3, 5, 8, 9) in ten dimensions on different scales, one of them constant."""
    random = np.random.default_rng(seed)
    centres = np.random.default_rng(99).normal(size=(4, 10))
    which = random.integers(4, size=count)
    features = (centres[which] + noise * random.normal(size=(count, 10))) * np.logspace(-2, 2, 10) + 5
    features[:, 4] = 7
    return torch.from_numpy(features).float(), torch.tensor([3, 5, 8, 9])[torch.from_numpy(which)]


@pytest.mark.parametrize("penalty", [0.1, 1.0, 100.0])
def test_weights_and_predictions_are_scikit_learns(penalty: float) -> None:
    features, labels = clusters(400)
    scaler = StandardScaler().fit(features.double().numpy())
    judge = LogisticRegression(C=1 / penalty, tol=1e-10, max_iter=5000)
    judge.fit(scaler.transform(features.double().numpy()), labels.numpy())
    probe = fit_probe(features, labels, penalty=penalty)
    assert probe.classes.tolist() == judge.classes_.tolist()
    np.testing.assert_allclose(probe.weight.numpy(), judge.coef_, atol=2e-4)
    bias = probe.bias.numpy()
    np.testing.assert_allclose(bias - bias.mean(), judge.intercept_ - judge.intercept_.mean(), atol=2e-4)
    fresh, _ = clusters(300, seed=1)
    theirs = judge.predict(scaler.transform(fresh.double().numpy()))
    assert probe.predict(fresh).tolist() == theirs.tolist()


def test_two_classes_are_told_apart() -> None:
    features = torch.tensor([[-1.0, 0.5], [-2.0, 0.1], [1.0, 0.2], [2.0, 0.4]])
    assert fit_probe(features, torch.tensor([0, 0, 1, 1])).predict(features).tolist() == [0, 0, 1, 1]


def test_held_out_accuracy_is_high_on_what_is_linear_and_chance_on_what_is_not() -> None:
    features, labels = clusters(800, noise=0.2)
    assert held_out_accuracy(features, labels).value > 0.98
    shuffled = labels[torch.randperm(len(labels), generator=torch.Generator().manual_seed(0))]
    found = held_out_accuracy(features, shuffled)
    assert found.low < 0.25 < found.high


def test_a_scene_is_never_on_both_sides() -> None:
    """Labels that only memory of the scene gives away: rows of one scene are alike, scenes are unrelated."""
    random = torch.Generator().manual_seed(0)
    scenes = torch.arange(60).repeat_interleave(10)
    features = torch.randn(60, 80, generator=random)[scenes]
    labels = torch.randint(2, (60,), generator=random)[scenes]
    assert held_out_accuracy(features, labels).value == 1
    assert held_out_accuracy(features, labels, scenes=scenes).contains(0.5)


def test_frozen_half_precision_features_and_no_grad_are_fine() -> None:
    features, labels = clusters(200, noise=0.2)
    features = (features - features.mean(0)) / features.std(0).clamp(min=1e-3)
    with torch.no_grad():
        assert held_out_accuracy(features.bfloat16(), labels).value > 0.9
