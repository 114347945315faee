"""IPOT against UNITER's loop without logarithms, and in the limit against POT's exact transport."""

import numpy as np
import ot
import pytest
import torch
from torch.testing import assert_close

from mmbridge.transport.ipot import ipot
from mmbridge.transport.plan import uniform
from mmbridge.transport.sinkhorn import sinkhorn
from tests.transport.clouds import cosines, weights


def looped(cost: np.ndarray, beta: float, iterations: int) -> np.ndarray:
    """The published algorithm for one pair without padding: n rows, m columns, uniform."""
    n, m = cost.shape
    sigma, plan, kernel = np.ones((m, 1)) / m, np.ones((n, m)), np.exp(-cost / beta)
    for _ in range(iterations):
        q = kernel * plan
        delta = 1 / (n * (q @ sigma))
        sigma = 1 / (m * (q.T @ delta))
        plan = delta * q * sigma.T
    return plan


@pytest.mark.parametrize("beta", [0.5, 0.1])
def test_equals_the_published_loop_for_every_pair_of_a_padded_batch(beta: float) -> None:
    sizes = [(6, 4), (3, 7), (1, 1)]
    rows, columns = (torch.tensor([[k < size[side] for k in range((6, 7)[side])] for size in sizes]) for side in (0, 1))
    cost = torch.full((3, 6, 7), torch.nan, dtype=torch.float64)
    for i, (n, m) in enumerate(sizes):
        cost[i, :n, :m] = cosines(n, m, i)
    found = ipot(cost, beta, uniform(rows), uniform(columns))
    assert found.iterations == 50
    for i, (n, m) in enumerate(sizes):
        expected = looped(cost[i, :n, :m].numpy(), beta, 50)
        assert_close(found.plan[i, :n, :m].numpy(), expected, atol=1e-7, rtol=1e-6)  # uniform marginals are in float32
        assert found.plan[i].sum() == pytest.approx(1, abs=1e-6)
        assert found.residual[i] == pytest.approx(np.abs(expected.sum(1) - 1 / n).sum(), abs=1e-6)


def test_nears_exact_transport() -> None:
    cost, a, b = cosines(20, 15, seed=1), weights(20, 1), weights(15, 2)
    exact = torch.from_numpy(ot.emd(a.numpy(), b.numpy(), cost.numpy()))
    off = [float((ipot(cost, 0.5, a, b, iterations=steps).plan - exact).abs().sum()) for steps in (50, 500, 5000)]
    assert 0.1 > off[0] > 100 * off[1]
    assert off[2] < 1e-8
    ours = float((cost * ipot(cost, 0.5, a, b, iterations=5000).plan).sum())
    assert ours == pytest.approx(float((cost * exact).sum()), abs=1e-7)


def test_is_entropic_for_its_own_marginals() -> None:
    """With potentials of ε = β / t."""
    cost = cosines(5, 8)
    found = ipot(cost, 0.5, iterations=30)
    epsilon = 0.5 / 30
    entropic = sinkhorn(cost, epsilon, found.plan.sum(1), found.plan.sum(0), tolerance=1e-12)
    assert_close(found.plan, entropic.plan, atol=1e-10, rtol=0)
    assert_close(found.plan, torch.exp((found.rows[:, None] + found.columns - cost) / epsilon))


def test_small_beta_in_half_precision_is_finite() -> None:
    """Where the published loop divides by zero."""
    cost = (100 * cosines(6, 5)).bfloat16()
    with np.errstate(divide="ignore", invalid="ignore"):
        assert not np.isfinite(looped(cost.float().numpy().astype(np.float32), 0.01, 50)).all()
    found = ipot(cost, 0.01)
    assert found.plan.isfinite().all()
    assert found.plan.sum() == pytest.approx(1, abs=1e-4)


def test_nothing_is_transported_where_one_side_is_empty() -> None:
    mask = torch.tensor([[True, False], [False, False]])
    cost = cosines(3, 2, batch=(2,)).requires_grad_()
    found = ipot(cost, columns=uniform(mask))
    found.plan.square().sum().backward()  # type: ignore[no-untyped-call]
    assert cost.grad is not None
    assert cost.grad.isfinite().all()
    assert found.plan[1].abs().sum() == found.residual[1] == 0
    assert_close(found.plan[0, :, 0], torch.full((3,), 1 / 3, dtype=torch.float64))
