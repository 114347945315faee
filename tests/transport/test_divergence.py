"""Sinkhorn's divergence against POT's values, and what makes it a distance."""

from typing import Any

import ot
import pytest
import torch
from torch import Tensor
from torch.autograd import gradcheck
from torch.testing import assert_close

from mmbridge.transport.divergence import cosine_cost, entropic_cost, sinkhorn_divergence, squared_cost
from tests.transport.clouds import points, weights


def value(cost: Tensor, epsilon: float, a: Tensor, b: Tensor) -> float:
    """POT's, with the entropy taken against abᵀ."""
    given = cost.numpy(), a.numpy(), b.numpy()
    found: Any = ot.solve(*given, reg=epsilon, reg_type="KL", max_iter=3000, tol=1e-9)
    return float(found.value)


@pytest.mark.parametrize("epsilon", [1.0, 0.2, 0.05])
def test_equals_pot(epsilon: float) -> None:
    x, y, a, b = points(8, 3, 1) / 2, points(11, 3, 2) / 2 + 0.3, weights(8, 3), weights(11, 4)
    for cost in (squared_cost, cosine_cost):
        pairs = ((x, y, a, b), (x, x, a, a), (y, y, b, b))
        between, first, second = (value(cost(p, q), epsilon, c, d) for p, q, c, d in pairs)
        assert float(entropic_cost(cost(x, y), epsilon, a, b)) == pytest.approx(between, abs=1e-6)
        found = float(sinkhorn_divergence(x, y, epsilon, a, b, cost=cost))
        assert found == pytest.approx(between - (first + second) / 2, abs=2e-6)


def test_costs() -> None:
    x, y = points(4, 3, 1), points(5, 3, 2)
    assert_close(squared_cost(x, y).numpy(), ot.dist(x.numpy(), y.numpy()) / 2)
    assert_close(cosine_cost(x, y).numpy(), ot.dist(x.numpy(), y.numpy(), metric="cosine"))
    assert cosine_cost(x.bfloat16(), y.bfloat16()).dtype == torch.float32


@pytest.mark.parametrize("epsilon", [1.0, 0.05])
def test_is_zero_only_for_equal_sets_and_symmetric(epsilon: float) -> None:
    x, a = points(7, 3, 1, (3,)), weights(7, 2, (3,))
    y, b = points(9, 3, 3, (3,)), weights(9, 4, (3,))
    shuffled = torch.randperm(7, generator=torch.Generator().manual_seed(0))
    same = sinkhorn_divergence(x, x[:, shuffled], epsilon, a, a[:, shuffled], tolerance=1e-10)
    assert_close(same, torch.zeros(3, dtype=torch.float64), atol=1e-8, rtol=0)
    there, back = sinkhorn_divergence(x, y, epsilon, a, b), sinkhorn_divergence(y, x, epsilon, b, a)
    assert_close(there, back, atol=1e-5, rtol=0)
    assert there.min() > 0.01
    moved = sinkhorn_divergence(x, x + 0.1, epsilon, a, a, tolerance=1e-10)
    assert_close(moved, torch.full((3,), 0.015, dtype=torch.float64), atol=1e-7, rtol=0)  # half of 3 · 0.1²
    reweighted = sinkhorn_divergence(x, x, epsilon, a, a.flip(-1))
    assert reweighted.min() > 1e-3


def test_padding_is_left_out() -> None:
    x, y = points(5, 3, 1), points(6, 3, 2)
    a = weights(5, 3, zeros=2)
    padded = torch.cat([x[:3], torch.full((2, 3), torch.nan, dtype=torch.float64)])
    found = sinkhorn_divergence(padded, y, 0.1, a)
    assert_close(found, sinkhorn_divergence(x[:3], y, 0.1, a[:3]), atol=1e-5, rtol=0)


def test_gradients_are_those_of_finite_differences() -> None:
    x, y = points(4, 2, 1).requires_grad_(), points(3, 2, 2).requires_grad_()
    a = points(4, 1, 3)[:, 0].clone().requires_grad_()

    def divergence(x: Tensor, y: Tensor, a: Tensor) -> Tensor:
        return sinkhorn_divergence(x, y, 0.3, a.softmax(0), tolerance=1e-12)

    assert gradcheck(divergence, (x, y, a), atol=1e-6)
