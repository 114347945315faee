"""MIR against NumPy with scipy's matrix square root, and in closed form."""

from math import inf, log10

import numpy as np
import pytest
import scipy.linalg
import torch

from mmbridge.alignment import mir as module
from mmbridge.alignment.mir import frechet, mir, mir_term
from mmbridge.errors import DataError
from tests.alignment.clouds import permutation, points, rotation


def by_roots(a: np.ndarray, b: np.ndarray) -> float:
    """√(S S') by scipy, for which covariances get a little more than nothing where they are singular."""
    s, t = np.cov(a.T), np.cov(b.T)
    little = 1e-13 * np.trace(s) * np.eye(len(s))
    root = scipy.linalg.sqrtm((s + little) @ (t + little)).real
    return float(((a.mean(0) - b.mean(0)) ** 2).sum() + np.trace(s) + np.trace(t) - 2 * np.trace(root))


def tamed(cloud: np.ndarray) -> np.ndarray:
    """Row by row; medians are the lower of the two in the middle."""
    norms = [float(np.sqrt(row @ row)) for row in cloud]
    middle = (len(cloud) - 1) // 2
    median = sorted(norms)[middle]
    limit = 3 * np.std(norms, ddof=1)
    state = np.array([sorted(column)[middle] for column in cloud.T])
    return np.array([state if abs(norm - median) > limit else row for norm, row in zip(norms, cloud, strict=True)])


@pytest.mark.proof("mir", against="scipy.linalg.sqrtm of covariances, in NumPy, with outliers row by row")
@pytest.mark.parametrize(("a", "b", "d"), [(80, 70, 6), (7, 90, 12), (90, 7, 12), (6, 9, 12)])
@pytest.mark.parametrize("at_once", [1, 1 << 22])
def test_a_term_equals_scipy(a: int, b: int, d: int, at_once: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "AT_ONCE", at_once)
    mixing = points(d, d, 5)
    tokens, text = 4 * points(a, d, 1) @ mixing + 3, points(b, d, 2, shift=0.2) @ mixing
    if min(a, b) > 50:
        tokens[[3, 40]] *= 30
        text[7] *= 50
    unit = np.mean(np.linalg.norm(text.numpy(), axis=1))
    clouds = [tamed(each.numpy() / unit) for each in (tokens, text)]
    if min(a, b) > 50:
        assert [len(np.unique(each, axis=0)) for each in clouds] == [a - 1, b]
    assert mir_term(tokens, text) == pytest.approx(by_roots(*clouds), rel=1e-4 if min(a, b) <= d else 1e-9)


@pytest.mark.parametrize("rank", [1, 3, 8])
def test_singular_covariances_of_large_clouds(rank: int) -> None:
    """States of a few dimensions within more, in directions that the clouds share only in part."""
    x, y = points(50, rank, 1) @ points(rank, 8, 3), points(60, 2, 2) @ points(2, 8, 4)
    assert frechet(x, y) == pytest.approx(by_roots(x.numpy(), y.numpy()), rel=1e-4)


def test_closed_forms() -> None:
    """Clouds stretched along axes: Σ (μ − μ')² + Σ (σ − σ')², and on one line of many dimensions."""
    base = torch.linalg.qr(points(40, 3) - points(40, 3).mean(0)).Q * 39**0.5  # covariance: the identity
    one, other = torch.tensor([1.0, 2, 5]).double(), torch.tensor([3.0, 2, 0]).double()
    assert frechet(base * one, base[permutation(40)] * other + 2) == pytest.approx(4 + 0 + 25 + 12)
    line = torch.zeros(2, 1000, dtype=torch.float64)
    line[1] = 1
    assert frechet(line, 3 * line) == pytest.approx(1000 * (1 + 4 * 0.5))  # means 1 apart, σ² of 1/2 and 9/2


def test_clouds_that_are_alike_have_no_distance() -> None:
    for count, width in ((60, 8), (6, 30)):
        x = points(count, width, shift=1)
        assert mir_term(x, x[permutation(count)]) == pytest.approx(0, abs=1e-12)
    assert mir([0.0, 0.0]) == -inf


def test_orthogonal_clouds_are_as_far_apart_as_their_spreads_and_means() -> None:
    x, y = torch.zeros(30, 8, dtype=torch.float64), torch.zeros(40, 8, dtype=torch.float64)
    x[:, :4], y[:, 4:] = points(30, 4, 1, shift=2), points(40, 4, 2)
    spread = x.var(0).sum() + y.var(0).sum() + (x.mean(0) - y.mean(0)).square().sum()
    assert frechet(x, y) == pytest.approx(float(spread))


def test_neither_rotation_nor_scale_nor_order_matters() -> None:
    x, y = points(40, 6, 1, shift=0.5), points(30, 6, 2)
    turn = rotation(6)
    assert frechet(x[permutation(40)] @ turn, y @ turn) == pytest.approx(frechet(x, y))
    assert mir_term(7 * x, 7 * y) == pytest.approx(mir_term(x, y))
    assert mir_term(7 * x, y) > 2 * mir_term(x, y)


def test_half_precision_is_read_as_it_is() -> None:
    x, y = points(40, 6, 1).bfloat16(), points(30, 6, 2).bfloat16()
    assert mir_term(x, y) == pytest.approx(mir_term(x.double(), y.double()), rel=1e-12)


def test_depths_add_up() -> None:
    assert mir([0.5, 1.5, 98.0]) == pytest.approx(log10(100))


def test_what_cannot_be_scored_is_said() -> None:
    x = points(5, 3)
    with pytest.raises(DataError, match="perceptual tokens: expected at least 2 to score, found 1"):
        mir_term(x[:1], x)
    with pytest.raises(DataError, match="text tokens: expected at least 2 to score, found 0"):
        mir_term(x, x[:0])
    with pytest.raises(DataError, match="text tokens: expected states of some length, found zeros only"):
        mir_term(x, 0 * x)
    with pytest.raises(DataError, match="expected finite states, found 1 of 5"):
        frechet(x, x.index_fill(0, torch.tensor([2]), torch.nan))
