"""The gap and the cone against loops over pairs in NumPy."""

import numpy as np
import pytest
import torch

from mmbridge.alignment import clouds
from mmbridge.alignment.gap import cone, gap
from mmbridge.errors import DataError
from tests.alignment.clouds import permutation, points, rotation


@pytest.mark.proof("gap", against="loops over single states and over all pairs of them in NumPy")
@pytest.mark.parametrize("at_once", [1, 1 << 22])
def test_equals_loops(at_once: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(clouds, "AT_ONCE", at_once)
    x, y = points(13, 5, 1, shift=0.5), 30 * points(9, 5, 2, shift=-0.2)
    a, b = ([row / np.sqrt(row @ row) for row in each.numpy()] for each in (x, y))
    assert gap(x, y) == pytest.approx(np.linalg.norm(sum(a) / 13 - sum(b) / 9))
    pairs = [a[i] @ a[j] for i in range(13) for j in range(13) if i != j]
    assert cone(x) == pytest.approx(np.mean(pairs))
    assert cone(x.bfloat16()) == pytest.approx(cone(x.bfloat16().double()))


def test_limits() -> None:
    x = points(20, 6, shift=1)
    assert gap(x, 5 * x[permutation(20)]) == pytest.approx(0, abs=1e-12)
    axes = torch.eye(4, dtype=torch.float64)
    assert gap(axes[:1].expand(3, 4), axes[1:2].expand(5, 4)) == pytest.approx(2**0.5)
    assert gap(axes[:1], -3 * axes[:1]) == 2
    assert cone(axes) == 0
    assert cone(torch.tensor([[1.0, 2], [2, 4], [0.5, 1]])) == pytest.approx(1)
    assert cone(torch.tensor([[1.0, 2], [-1, -2]])) == pytest.approx(-1)


def test_neither_rotation_nor_scale_of_each_matters() -> None:
    x, y = points(20, 6, 1, shift=1), points(15, 6, 2)
    turn = rotation(6)
    assert gap(x @ turn * torch.rand(20, 1), 9 * y @ turn) == pytest.approx(gap(x, y))
    assert cone(9 * x @ turn) == pytest.approx(cone(x))


def test_halves_of_one_cloud_are_as_far_apart_as_said() -> None:
    """Δ² is (1 − cone)(1/N + 1/R) on average."""
    x = points(4000, 8, shift=0.7).view(100, 40, 8)
    found = np.mean([gap(each[:25], each[25:]) ** 2 for each in x])
    assert found == pytest.approx((1 - cone(x.flatten(0, 1))) * (1 / 25 + 1 / 15), rel=0.1)


def test_what_cannot_be_scored_is_said() -> None:
    with pytest.raises(DataError, match="states: expected at least 1 to score, found 0"):
        gap(points(3, 2), torch.zeros(0, 2))
    with pytest.raises(DataError, match="states: expected at least 2 to score, found 1"):
        cone(points(1, 2))
    with pytest.raises(DataError, match="states: expected finite states, found 1 of 2 that are not; load the LLM in"):
        gap(torch.tensor([[1.0, 2], [torch.nan, 1]]), points(2, 2))
