"""CKA and HSIC against their definitions over samples, over all permutations, and by what must not change them."""

from itertools import permutations
from math import isnan

import numpy as np
import pytest
import torch
from torch import Tensor

from mmbridge.alignment.cka import biased_chance, cka, hsic
from mmbridge.errors import DataError
from tests.alignment.clouds import permutation, points, rotation


def defined(first: np.ndarray, second: np.ndarray) -> float:
    """HSIC without bias as it is defined: the mean over all ordered quadruples of different samples of
    K_ij (L_ij + L_pq − 2 L_ip)."""
    k, l = first @ first.T, second @ second.T  # noqa: E741
    terms = [k[i, j] * (l[i, j] + l[p, q] - 2 * l[i, p]) for i, j, p, q in permutations(range(len(k)), 4)]
    return float(np.mean(terms))


def centred(first: np.ndarray, second: np.ndarray) -> float:
    """Biased HSIC by the centring matrix."""
    n = len(first)
    h = np.eye(n) - 1 / n
    return float(np.trace(first @ first.T @ h @ second @ second.T @ h)) / (n - 1) ** 2


def spaces(n: int, d: int, e: int) -> tuple[Tensor, Tensor]:
    samples = points(n, 4)
    return samples @ points(4, d, 1) + 3, samples @ points(4, e, 2) + points(n, e, 3) - 1


@pytest.mark.proof("cka", against="sums over all quadruples of samples, and traces of centred kernels, in NumPy")
@pytest.mark.parametrize(("n", "d", "e"), [(9, 2, 3), (7, 20, 30), (8, 2, 50)])
def test_equals_definitions_on_both_sides_of_width(n: int, d: int, e: int) -> None:
    x, y = spaces(n, d, e)
    a, b = x.numpy(), y.numpy()
    assert hsic(x, y) == pytest.approx(defined(a, b), rel=1e-9)
    assert hsic(x, y, unbiased=False) == pytest.approx(centred(a, b), rel=1e-9)
    assert cka(x, y) == pytest.approx(defined(a, b) / np.sqrt(defined(a, a) * defined(b, b)), rel=1e-9)
    truth = centred(a, b) / np.sqrt(centred(a, a) * centred(b, b))
    assert cka(x, y, unbiased=False) == pytest.approx(truth, rel=1e-9)


@pytest.mark.parametrize("unbiased", [True, False])
@pytest.mark.parametrize("d", [6, 60])
def test_neither_rotation_nor_scale_nor_shift_nor_order_matters(unbiased: bool, d: int) -> None:
    x, y = spaces(30, d, 10)
    order, moved = permutation(30), 1e-5 * x @ rotation(d) + 1e-4
    plain = cka(x, y, unbiased=unbiased)
    assert 0.1 < plain < 0.9
    assert cka(moved[order], 1e5 * y[order], unbiased=unbiased) == pytest.approx(plain)
    assert cka(x, moved, unbiased=unbiased) == pytest.approx(1)
    assert cka(y, x, unbiased=unbiased) == pytest.approx(plain)


@pytest.mark.parametrize(("d", "e"), [(2, 3), (9, 8)])
def test_chance_is_the_mean_over_all_permutations(d: int, e: int) -> None:
    x, y = spaces(6, d, e)
    every = [list(order) for order in permutations(range(6))]
    biased = [cka(x, y[order], unbiased=False) for order in every]
    assert biased_chance(x, y) == pytest.approx(np.mean(biased))
    free = [hsic(x, y[order]) for order in every]
    assert np.mean(free) == pytest.approx(0, abs=1e-9 * np.abs(free).max())


def test_independent_spaces_are_at_chance() -> None:
    """Wide ones look alike to the biased score alone."""
    x, y = points(60, 600, 1), points(60, 500, 2)
    assert abs(cka(x, y)) < 0.05
    assert cka(x, y, unbiased=False) > 0.85
    assert cka(x, y, unbiased=False) == pytest.approx(biased_chance(x, y), abs=0.02)


def test_orthogonal_spaces_score_nothing() -> None:
    """Samples whose centred features are uncorrelated, exactly."""
    angle = torch.arange(12, dtype=torch.float64) * 2 * torch.pi / 12
    assert cka(torch.cos(angle)[:, None], torch.sin(angle)[:, None], unbiased=False) == pytest.approx(0, abs=1e-12)


def test_a_space_that_does_not_vary_has_no_score() -> None:
    x, y = torch.ones(8, 3), points(8, 2)
    assert isnan(cka(x, y))
    assert isnan(cka(x, y, unbiased=False))
    assert isnan(biased_chance(x, y))


def test_what_cannot_be_scored_is_said() -> None:
    with pytest.raises(DataError, match="samples: expected at least 4 to score, found 3"):
        cka(points(3, 2), points(3, 2))
    with pytest.raises(DataError, match="samples: expected at least 2 to score, found 0"):
        biased_chance(torch.zeros(0, 2), torch.zeros(0, 2))
    with pytest.raises(DataError, match="expected finite states, found 5 of 5"):
        hsic(points(5, 2), torch.full((5, 2), torch.inf))
