"""Mutual neighbours and CKNNA against loops over single samples in NumPy, and by what must not change them."""

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from mmbridge.alignment.neighbours import (
    cknna,
    clamped,
    mutual_neighbours,
    nearest,
    neighbour_chance,
    overlaps,
)
from mmbridge.errors import DataError
from tests.alignment.clouds import permutation, points, rotation

N, K = 40, 5


def spaces() -> tuple[Tensor, Tensor]:
    """Two views of the same samples, of unequal width, neither about the origin."""
    samples = points(N, 6)
    return samples @ points(6, 12, 1) + 0.5, samples @ points(6, 9, 2) + 2 * points(N, 9, 3) - 0.3


def prepared(features: Tensor) -> np.ndarray:
    """As released: a threshold from each sample's values, their mean, rows of length 1."""
    rows = features.numpy()
    bound = np.mean([np.quantile(np.abs(row), 0.95) for row in rows])
    kept = np.array([[min(max(value, -bound), bound) for value in row] for row in rows])
    units: np.ndarray = kept / np.sqrt((kept**2).sum(1, keepdims=True))
    return units


def near(rows: np.ndarray, i: int, k: int) -> set[int]:
    return set(sorted((j for j in range(len(rows)) if j != i), key=lambda j: -float(rows[i] @ rows[j]))[:k])


@pytest.mark.proof("mutual_knn", against="loops over sets of neighbours in NumPy")
def test_mutual_neighbours_equal_loops() -> None:
    first, second = spaces()
    found = mutual_neighbours(first, second, K)
    a, b = prepared(first), prepared(second)
    truth = [len(near(a, i, K) & near(b, i, K)) / K for i in range(N)]
    assert found.overlaps.tolist() == pytest.approx(truth)
    assert found.mean == pytest.approx(np.mean(truth))
    assert 0.2 < found.mean < 0.9
    assert_close(found.overlaps, overlaps(nearest(first, K), nearest(second, K)))


@pytest.mark.proof("cknna", against="loops over quadruples' sums in NumPy, kernel entry by entry")
def test_cknna_equals_loops() -> None:
    first, second = spaces()
    a, b = prepared(first), prepared(second)
    of_a, of_b = ([near(rows, i, K) for i in range(N)] for rows in (a, b))

    def hsic(left: np.ndarray, right: np.ndarray, allowed: list[set[int]]) -> float:
        k, l = np.zeros((N, N)), np.zeros((N, N))  # noqa: E741
        for i in range(N):
            for j in allowed[i]:
                k[i, j], l[i, j] = left[i] @ left[j], right[i] @ right[j]
        trace = sum(k[i, j] * l[j, i] for i in range(N) for j in range(N))
        through = sum(k[i, j] * l[j, m] for i in range(N) for j in range(N) for m in range(N))
        sums = k.sum() * l.sum() / ((N - 1) * (N - 2))
        return float((trace + sums - 2 * through / (N - 2)) / (N * (N - 3)))

    both = [x & y for x, y in zip(of_a, of_b, strict=True)]
    truth = hsic(a, b, both) / np.sqrt(hsic(a, a, of_a) * hsic(b, b, of_b))
    assert cknna(first, second, K) == pytest.approx(truth, rel=1e-10)
    assert 0.1 < truth < 0.9


def test_clamping_is_of_a_mean_quantile_of_all_that_a_sample_has() -> None:
    layers = points(6, 8).view(6, 2, 4)
    bound = np.mean([np.quantile(np.abs(row), 0.7) for row in layers.flatten(1).numpy()])
    assert_close(clamped(layers, 0.7).numpy(), np.clip(layers.numpy(), -bound, bound))
    assert_close(nearest(layers[:, 0], 2, clamp=None), nearest(layers[:, 0], 2, clamp=1 - 1e-12))


def test_neither_rotation_nor_scale_nor_order_matters() -> None:
    first, second = spaces()
    order, turned = permutation(N), 37 * first @ rotation(12)
    plain, moved = mutual_neighbours(first, second, K, None), mutual_neighbours(turned[order], second[order], K, None)
    assert_close(moved.overlaps, plain.overlaps[order])
    assert mutual_neighbours(first, turned, K, None).mean == 1
    assert cknna(turned[order], second[order], K, None) == pytest.approx(cknna(first, second, K, None))
    assert cknna(first, turned, K, None) == pytest.approx(1)
    released = mutual_neighbours(37 * first[order], 1e-3 * second[order], K)
    assert_close(released.overlaps, mutual_neighbours(first, second, K).overlaps[order])


def test_spaces_of_different_samples_are_at_chance() -> None:
    first, second = points(400, 16, 1), points(400, 24, 2)
    found = mutual_neighbours(first, second)
    off = float(found.overlaps.std()) / 20
    assert abs(found.mean - neighbour_chance(10, 400)) < 4 * off
    assert neighbour_chance(10, 400) == 10 / 399
    assert abs(cknna(first, second)) < 0.05


def test_orthogonal_neighbourhoods_share_nothing() -> None:
    """On two circles, neighbours along one are far apart along the other."""
    angle = torch.arange(21, dtype=torch.float64) * 2 * torch.pi / 21
    circle, skipping = (torch.stack([torch.cos(m * angle), torch.sin(m * angle)], 1) for m in (1, 8))
    assert mutual_neighbours(circle, skipping, 2, None).mean == 0
    assert mutual_neighbours(circle, circle.flip(1), 2, None).mean == 1


def test_what_cannot_be_scored_is_said() -> None:
    with pytest.raises(DataError, match="neighbours: expected more than 10 samples, found 10"):
        mutual_neighbours(points(10, 3), points(10, 3))
    with pytest.raises(DataError, match="neighbours: expected more than 3 samples, found 3"):
        cknna(points(3, 3), points(3, 3), 2)
    with pytest.raises(DataError, match="expected finite states, found 12 of 12"):
        nearest(torch.full((12, 3), torch.nan))
