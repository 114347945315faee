"""Entropic transport against POT, by finite differences, and where padding, rounding and impatience could spoil it."""

from collections.abc import Callable

import numpy as np
import ot
import pytest
import torch
from torch import Tensor
from torch.autograd import gradcheck
from torch.testing import assert_close

from mmbridge.transport.plan import uniform
from mmbridge.transport.sinkhorn import sinkhorn
from tests.transport.clouds import cosines, points, weights

SHAPES = [(1, 7), (7, 1), (1, 1), (20, 20), (30, 40), (64, 20)]
SEED = 2
"""With which POT's solver converges for 20 × 20 at ε = 0.01 too; with most it does not in 20,000 iterations."""
EPSILONS = [0.5, 0.1, 0.05, 0.01]


def reference(cost: Tensor, epsilon: float, rows: Tensor, columns: Tensor) -> Tensor:
    """POT's plan in the log domain in float64, run until it no longer moves."""
    a, b, matrix = rows.double().numpy(), columns.double().numpy(), cost.double().numpy()
    real = np.ix_(a > 0, b > 0)
    found = np.zeros_like(matrix)
    found[real] = ot.bregman.sinkhorn_log(a[a > 0], b[b > 0], matrix[real], epsilon, numItermax=100_000, stopThr=1e-11)
    assert np.abs(found.sum(1) - a).sum() + np.abs(found.sum(0) - b).sum() < 1e-8
    return torch.from_numpy(found)


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("epsilon", EPSILONS)
@pytest.mark.parametrize("shape", SHAPES)
def test_equals_pot(shape: tuple[int, int], epsilon: float, weighted: bool) -> None:
    n, m = shape
    cost = cosines(n, m, SEED)
    rows = weights(n, 1) if weighted else torch.full((n,), 1 / n, dtype=torch.float64)
    columns = weights(m, 2) if weighted else torch.full((m,), 1 / m, dtype=torch.float64)
    expected = reference(cost, epsilon, rows, columns)
    for dtype, exact, near in ((torch.float64, 1e-6, 1e-5), (torch.float32, 1e-5, 1e-4)):
        given = (rows.to(dtype), columns.to(dtype)) if weighted else (None, None)
        found = sinkhorn(cost.to(dtype), epsilon, *given, tolerance=exact / 10)
        off = (found.plan.sum(-1) - rows).abs().sum() + (found.plan.sum(-2) - columns).abs().sum()
        assert off <= exact
        assert float(found.residual) == pytest.approx(float(off), abs=1e-6)
        assert (found.plan - expected).abs().sum() <= near
        potentials = torch.exp((found.rows[:, None] + found.columns - cost) / epsilon)
        assert (found.plan - potentials).abs().sum() <= near


@pytest.mark.parametrize("epsilon", EPSILONS)
def test_a_padded_batch_equals_its_plans_one_by_one(epsilon: float) -> None:
    """Two leading dimensions, lengths of their own, NaN in the padding."""
    sizes = [[(7, 5), (3, 9)], [(1, 4), (6, 6)]]
    rows, columns = torch.zeros(2, 2, 7, dtype=torch.float64), torch.zeros(2, 2, 9, dtype=torch.float64)
    cost = torch.full((2, 2, 7, 9), torch.nan, dtype=torch.float64)
    for i, row in enumerate(sizes):
        for j, (n, m) in enumerate(row):
            rows[i, j, :n], columns[i, j, :m] = weights(n, i), weights(m, j)
            cost[i, j, :n, :m] = cosines(n, m, 2 * i + j)
    found = sinkhorn(cost, epsilon, rows, columns, tolerance=1e-8)
    assert found.residual.shape == (2, 2)
    assert found.residual.max() <= 1e-8
    for i, row in enumerate(sizes):
        for j, (n, m) in enumerate(row):
            expected = reference(cost[i, j, :n, :m], epsilon, rows[i, j, :n], columns[i, j, :m])
            assert_close(found.plan[i, j, :n, :m], expected, atol=1e-7, rtol=0)
            assert_close(found.plan[i, j].sum(), torch.tensor(1.0, dtype=torch.float64))


def test_what_takes_sinkhorn_forever_converges() -> None:
    """A plan that is nearly a permutation: POT's solver is off by 4e-6 after 20,000 iterations.

    Exponentials of potentials with the right marginals are the optimum, whoever found them.
    """
    cost = cosines(12, 12, seed=3)
    found = sinkhorn(cost, 0.01, tolerance=1e-11)
    plan = torch.exp((found.rows[:, None] + found.columns - cost) / 0.01)
    twelfth = torch.full((12,), 1 / 12, dtype=torch.float64)
    assert_close(plan.sum(0), twelfth, atol=1e-11, rtol=0)
    assert_close(plan.sum(1), twelfth, atol=1e-11, rtol=0)
    assert found.iterations < 300


@pytest.mark.parametrize("seed", range(30))
def test_converges_whatever_the_cost(seed: int) -> None:
    """Costs of up to 10,000 ε, sets against themselves, ties, outliers, weights over six orders of magnitude."""
    draw = np.random.default_rng(seed)
    (n, m), batch = draw.integers(1, 60, 2).tolist(), int(draw.integers(1, 5))
    epsilon, scale = float(draw.choice([0.5, 0.1, 0.01, 0.003])), 10 ** draw.uniform(-1, 1.5)
    x, y = draw.normal(size=(batch, n, 3)), draw.normal(size=(batch, m, 3))
    kind = seed % 4
    if kind == 3:
        y, m = x, n
    cost = ((x[:, :, None] - y[:, None]) ** 2).sum(-1)
    if kind == 2:
        cost = (cost > np.median(cost)).astype(float)
    rows, columns = draw.uniform(0.01, 1, (batch, n)) ** 3, draw.uniform(size=(batch, m))
    given = [torch.from_numpy(each / each.sum(-1, keepdims=True)) for each in (rows, columns)]
    exact = sinkhorn(torch.from_numpy(scale * cost), epsilon, *given, tolerance=1e-8)
    rough = sinkhorn(torch.from_numpy(scale * cost).float(), epsilon, *given)
    assert exact.residual.max() <= 1e-8
    assert rough.residual.max() <= 1e-5
    assert (exact.plan - rough.plan).abs().sum((-2, -1)).max() <= 1e-4
    assert exact.iterations < 1000


def test_running_out_of_iterations_is_told() -> None:
    found = sinkhorn(cosines(20, 20), 0.01, tolerance=1e-9, most=7)
    assert found.iterations == 7
    assert found.residual > 1e-3
    short = sinkhorn(cosines(20, 20), 0.01, iterations=7)
    assert_close(found.plan, short.plan)
    assert_close(found.residual, short.residual)


@pytest.mark.parametrize("wrong", [torch.nan, torch.inf])
def test_costs_that_are_not_finite_end_it(wrong: float) -> None:
    cost = cosines(20, 20)
    cost[3] = wrong
    found = sinkhorn(cost, 0.01)
    assert not found.residual <= 1e-5
    assert found.iterations <= 10_000


def test_totals_that_differ_are_told() -> None:
    found = sinkhorn(cosines(4, 5), 0.5, torch.full((4,), 0.25), torch.full((5,), 0.3), most=200)
    assert found.residual == pytest.approx(0.5, abs=1e-3)


@pytest.mark.parametrize("iterations", [1, 3, 20])
def test_fixed_iterations_are_those_of_a_loop(iterations: int) -> None:
    cost, a, b = cosines(6, 9), weights(6, 1), weights(9, 2, zeros=2)
    kernel, u, v = np.exp(-cost.numpy() / 0.05), np.ones(6), (b > 0).double().numpy()
    for _ in range(iterations):
        u = a.numpy() / (kernel @ v)
        v = b.numpy() / (kernel.T @ u)
    found = sinkhorn(cost, 0.05, a, b, iterations=iterations)
    assert found.iterations == iterations
    assert_close(found.plan.numpy(), u[:, None] * kernel * v)


def plan_of(iterations: int | None, epsilon: float) -> Callable[[Tensor, Tensor, Tensor], Tensor]:
    """Marginals by softmax, so that finite differences keep their totals; one row and one column are padding."""

    def plan(cost: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
        padded = [torch.cat([each.softmax(-1), each.new_zeros(*each.shape[:-1], 1)], -1) for each in (rows, columns)]
        return sinkhorn(cost, epsilon, *padded, iterations=iterations, tolerance=1e-13).plan

    return plan


@pytest.mark.parametrize("iterations", [None, 1, 3])
@pytest.mark.parametrize(("n", "m"), [(4, 3), (3, 5)])
@pytest.mark.parametrize("epsilon", [0.5, 0.1])
def test_gradients_are_those_of_finite_differences(iterations: int | None, n: int, m: int, epsilon: float) -> None:
    cost = cosines(n + 1, m + 1, batch=(2,)).requires_grad_()
    marginals = [points(size, 1, size)[:, 0].expand(2, -1).clone().requires_grad_() for size in (n, m)]
    assert gradcheck(plan_of(iterations, epsilon), (cost, *marginals), eps=1e-6, atol=1e-5)


def test_implicit_gradients_are_those_through_many_iterations() -> None:
    """At ε = 0.01, where finite differences see nothing."""
    weight, grads = cosines(9, 7, seed=5), []
    for iterations in (None, 3000):
        cost = cosines(9, 7).requires_grad_()
        (sinkhorn(cost, 0.01, iterations=iterations, tolerance=1e-12).plan * weight).sum().backward()  # type: ignore[no-untyped-call]
        grads.append(cost.grad)
    assert grads[0] is not None
    assert grads[0].abs().max() > 1e-3
    assert_close(*grads, atol=1e-7, rtol=1e-5)


@pytest.mark.parametrize("iterations", [None, 3])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_equal_vectors_in_half_precision(iterations: int | None, dtype: torch.dtype) -> None:
    """Cosines of 1 and −1 at ε = 0.01, whose exponentials no float32 holds."""
    unit = torch.eye(6)[[0, 0, 1, 2, 3, 3]]
    cost = (1 - unit @ torch.cat([unit, -unit]).T).to(dtype).requires_grad_()
    found = sinkhorn(cost, 0.01, iterations=iterations)
    found.plan.square().sum().backward()  # type: ignore[no-untyped-call]
    assert found.plan.dtype == torch.float32
    assert cost.grad is not None
    assert all(bool(each.isfinite().all()) for each in (found.plan, found.rows, found.columns, cost.grad))
    if iterations is None:
        assert found.residual <= 1e-5


@pytest.mark.parametrize("iterations", [None, 3])
def test_a_plan_without_mass_is_zero_and_leaves_the_others_alone(iterations: int | None) -> None:
    mask = torch.tensor([[True, True, False], [False, False, False]])
    cost = cosines(4, 3, batch=(2,)).requires_grad_()
    found = sinkhorn(cost, 0.1, None, uniform(mask), iterations=iterations)
    found.plan.square().sum().backward()  # type: ignore[no-untyped-call]
    assert cost.grad is not None
    assert torch.equal(found.plan[1], torch.zeros(4, 3, dtype=torch.float64))
    assert torch.equal(cost.grad[1], torch.zeros(4, 3, dtype=torch.float64))
    assert found.residual[1] == 0
    alone = sinkhorn(cost[0, :, :2], 0.1, iterations=iterations)
    assert_close(found.plan[0, :, :2], alone.plan, atol=1e-5, rtol=0)
    assert cost.grad[0].isfinite().all()
    assert cost.grad[0].abs().max() > 0


def test_autocast_leaves_a_plan_whole() -> None:
    cost = cosines(20, 9, SEED, batch=(2,)).float()
    with torch.autocast("cpu", torch.bfloat16):
        found = sinkhorn(cost, 0.05, tolerance=1e-5)
    assert found.residual.max() <= 1e-5
    assert torch.equal(found.plan, sinkhorn(cost, 0.05, tolerance=1e-5).plan)


@pytest.mark.parametrize("iterations", [3, None])
@pytest.mark.parametrize("shape", [(0, 4), (4, 0), (0, 0)])
def test_nothing_is_carried_from_or_to_nothing(shape: tuple[int, int], iterations: int | None) -> None:
    for given in (None, torch.full((shape[0],), 1 / max(1, shape[0]))):
        found = sinkhorn(torch.zeros(shape), 0.1, given, iterations=iterations)
        assert found.plan.shape == shape
        assert found.residual == 0
