"""Transport with relaxed marginals against POT, and against its own limits."""

import ot
import pytest
import torch
from torch.autograd import gradcheck
from torch.testing import assert_close

from mmbridge.transport.sinkhorn import sinkhorn
from mmbridge.transport.unbalanced import unbalanced
from tests.transport.clouds import cosines, weights

INFINITE = float("inf")


@pytest.mark.parametrize("totals", [(1.0, 1.0), (0.5, 2.0)])
@pytest.mark.parametrize("reach", [0.1, 1.0, (0.3, 2.0), (INFINITE, 0.5)])
@pytest.mark.parametrize("epsilon", [0.5, 0.05, 0.01])
def test_equals_pot(epsilon: float, reach: float | tuple[float, float], totals: tuple[float, float]) -> None:
    cost, a, b = cosines(9, 12), totals[0] * weights(9, 1), totals[1] * weights(12, 2)
    given = a.numpy(), b.numpy(), cost.numpy(), epsilon, reach
    expected = torch.from_numpy(ot.unbalanced.sinkhorn_unbalanced(*given, numItermax=100_000, stopThr=1e-13))
    for dtype, exact in ((torch.float64, 1e-8), (torch.float32, 1e-4)):
        found = unbalanced(cost.to(dtype), epsilon, reach, a.to(dtype), b.to(dtype), tolerance=exact / 100)
        assert (found.plan - expected).abs().sum() <= exact
        assert found.residual <= exact / 5


def test_equals_pot_stabilised() -> None:
    cost, a, b = cosines(9, 12), weights(9, 1), weights(12, 2)
    given = a.numpy(), b.numpy(), cost.numpy(), 0.05, 0.2
    expected = ot.unbalanced.sinkhorn_unbalanced(*given, method="sinkhorn_stabilized", numItermax=10_000, stopThr=1e-12)
    found = unbalanced(cost, 0.05, 0.2, a, b, tolerance=1e-10)
    assert (found.plan - torch.from_numpy(expected)).abs().sum() <= 1e-6


def test_keeps_marginals_at_infinity() -> None:
    cost, a, b = cosines(9, 12), weights(9, 1), weights(12, 2)
    found = unbalanced(cost, 0.1, INFINITE, a, b, tolerance=1e-10)
    assert_close(found.plan, sinkhorn(cost, 0.1, a, b, tolerance=1e-10).plan, atol=1e-9, rtol=0)


def test_far_points_are_left_behind() -> None:
    cost = torch.tensor([[0.0, 9.0], [9.0, 9.0]], dtype=torch.float64)
    found = unbalanced(cost, 0.01, 0.5)
    assert found.plan[0, 0] == pytest.approx(0.5, abs=0.02)
    assert found.plan.sum() - found.plan[0, 0] < 0.01


def test_padding_is_left_out_and_empty_plans_are_zero() -> None:
    cost = cosines(5, 4, batch=(2,))
    a, b = torch.stack([weights(5, 1, zeros=2), weights(5, 2)]), torch.stack([weights(4, 3), torch.zeros(4)])
    cost[0, 3:] = torch.nan
    found = unbalanced(cost, 0.1, 0.5, a, b, tolerance=1e-10)
    alone = unbalanced(cost[0, :3], 0.1, 0.5, a[0, :3], b[0], tolerance=1e-10)
    assert_close(found.plan[0, :3], alone.plan, atol=1e-9, rtol=0)
    assert found.plan[0, 3:].abs().sum() == found.plan[1].abs().sum() == 0
    assert found.residual.max() <= 1e-10


def test_fixed_iterations_have_the_gradients_of_finite_differences_and_converge() -> None:
    cost, a, b = (each.requires_grad_() for each in (cosines(4, 3), weights(4, 1), 2 * weights(3, 2)))
    assert gradcheck(lambda *given: unbalanced(given[0], 0.2, 0.5, *given[1:], iterations=5).plan, (cost, a, b))
    assert not unbalanced(cost, 0.2, 0.5, a, b).plan.requires_grad
    many = unbalanced(cost, 0.2, 0.5, a, b, iterations=300).plan
    assert_close(many.detach(), unbalanced(cost, 0.2, 0.5, a, b, tolerance=1e-12).plan)


def test_running_out_of_iterations_is_told() -> None:
    found = unbalanced(cosines(9, 12), 0.01, 5.0, most=3)
    assert found.iterations == 3
    assert found.residual > 1e-3
