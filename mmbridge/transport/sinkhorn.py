"""Entropic optimal transport between two marginals.

    min ⟨C, P⟩ + ε Σ P (log P − 1)  over P ≥ 0 with P1 = a and Pᵀ1 = b

Sinkhorn Distances: Lightspeed Computation of Optimal Transport
Marco Cuturi, arXiv 1306.0895

Stabilized Sparse Scaling Algorithms for Entropy Regularized Transport Problems
Bernhard Schmitzer, arXiv 1610.06519 (scalings absorbed into potentials)

Symbols as in ``plan``; N plans. An iteration scales rows, then columns: P = exp((f + g − C) / ε).

A fixed number of iterations is done in the log domain. To a tolerance, the log domain is visited once a round, and in
between a kernel near the plan is scaled: the same iterates, several times as fast, and in float32 free of the rounding
of costs divided by ε, as potentials are in float64. What has not converged after some rounds is begun anew at a large
ε that is halved down to the one asked for, with a Newton step between rounds; without, ε = 0.01 can take 100,000
iterations, and more where parts of a plan exchange next to nothing.
"""

import math
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from mmbridge.transport.balance import balance
from mmbridge.transport.plan import Transport, log, prepared, residual

ROUND = 10
"""Iterations between two visits to the log domain."""
GROWTH = 1e6
"""A scaling at which the log domain is visited at once, long before anything overflows."""
PLAIN = 50
"""Iterations before annealing and Newton steps."""
COARSE = 1e-5
"""The residual at which annealing goes on."""
LARGEST = 1024
"""The longest shorter side of a plan for which Newton steps are taken."""


def sinkhorn(
    cost: Tensor,
    epsilon: float,
    rows: Tensor | None = None,
    columns: Tensor | None = None,
    *,
    iterations: int | None = None,
    tolerance: float = 1e-5,
    most: int = 10_000,
) -> Transport:
    """The entropic plan, run to a tolerance or for a fixed number of iterations.

    The plan's gradients with respect to cost and marginals are exact: of a fixed number of iterations, through each of
    them; to a tolerance, by implicit differentiation of the marginals' equations, and potentials have none then.

    Args:
        cost: (…, n, m), finite, any float dtype; computed in float64 where it is, else in float32.
        epsilon: the entropy's weight, in units of the cost.
        rows, columns: marginals (…, n) and (…, m) of one total, not negative, zero for what is padding; uniform with
            total 1 where left out. Where totals differ the residual cannot vanish.
        iterations: how many; None to run to the tolerance.
        tolerance: of the residual, which every plan of the batch must reach; in float32 not much below 1e-6. A larger
            one in what is returned says that ``most`` were not enough.
        most: iterations, Newton steps among them, at which it is given up.
    """
    cost, a, b = prepared(cost, rows, columns)
    with torch.autocast(cost.device.type, enabled=False):
        return _solved(cost, a, b, epsilon, iterations, tolerance, most)


def _solved(
    cost: Tensor, a: Tensor, b: Tensor, epsilon: float, iterations: int | None, tolerance: float, most: int
) -> Transport:
    if iterations is not None:
        plan, f, g = _unrolled(cost, a, b, epsilon, iterations)
        return Transport(plan, f, g, iterations, residual(plan, a, b))
    plans = cost.shape[:-2].numel()
    flat = cost.reshape(plans, *cost.shape[-2:]), a.reshape(plans, a.shape[-1]), b.reshape(plans, b.shape[-1])
    plan, f, g, run = _Converged.apply(*flat, epsilon, tolerance, most)  # type: ignore[no-untyped-call]
    plan = plan.reshape(cost.shape)
    return Transport(plan, f.reshape(a.shape), g.reshape(b.shape), run, residual(plan, a, b))


def _unrolled(
    cost: Tensor, a: Tensor, b: Tensor, epsilon: float, iterations: int, start: Tensor | None = None
) -> tuple[Tensor, Tensor, Tensor]:
    """The plan and its potentials after so many iterations from potentials (…, m) of the columns, or from zero."""
    f, g = torch.zeros_like(a), torch.zeros_like(b).where(b > 0, -torch.inf) if start is None else start
    for _ in range(iterations):
        f = _scaled(cost, g, a, epsilon)
        g = _scaled(cost.mT, f, b, epsilon)
    return torch.exp((f[..., None] + g[..., None, :] - cost) / epsilon), f, g


def _scaled(cost: Tensor, others: Tensor, marginal: Tensor, epsilon: float) -> Tensor:
    """The potentials (…, n) that give rows their marginal (…, n), for potentials (…, m) of the columns."""
    sums = torch.logsumexp((others[..., None, :] - cost) / epsilon, -1)
    return (epsilon * (log(marginal) - sums)).where(marginal > 0, -torch.inf)


class _Converged(torch.autograd.Function):
    """To a tolerance: plan (N, n, m), potentials (N, n) and (N, m), iterations.

    With W = P · ∂L/∂P, and (x, y) the changes of the potentials that would add W's marginals to those of P,
    ∂L/∂C = (P · (x + y) − W) / ε, ∂L/∂a = x and ∂L/∂b = y.
    """

    @staticmethod
    def forward(
        ctx: Any, cost: Tensor, a: Tensor, b: Tensor, epsilon: float, tolerance: float, most: int
    ) -> tuple[Tensor, Tensor, Tensor, int]:
        plan, f, g, run = _converged(cost, a, b, epsilon, tolerance, most)
        ctx.epsilon = epsilon
        ctx.save_for_backward(plan)
        f, g = f.to(a), g.to(b)
        ctx.mark_non_differentiable(f, g)
        return plan, f, g, run

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor, *_: Any) -> tuple[Tensor | None, ...]:
        (plan,) = ctx.saved_tensors
        weighted = grad * plan
        x, y = (each.to(plan) for each in balance(plan, weighted.sum(-1), weighted.sum(-2)))
        cost = (plan * (x[..., None] + y[:, None]) - weighted) / ctx.epsilon
        return cost, x, y, None, None, None


def _converged(
    cost: Tensor, a: Tensor, b: Tensor, epsilon: float, tolerance: float, most: int
) -> tuple[Tensor, Tensor, Tensor, int]:
    """The plan (N, n, m), its potentials, and the iterations run."""
    _, f, g = _unrolled(cost, a, b, epsilon, 1)
    run, level, plain = 1, epsilon, True
    while True:
        # rounding of the columns' sums, which fit, may take the other half of the tolerance
        enough = tolerance / 2 if level == epsilon else max(COARSE, tolerance / 2)
        plan, f, g, rounds, off = _round(cost, f, g, a, b, level, enough, most - run)
        run += rounds
        reached = off <= enough
        if run >= most or math.isnan(off) or (reached and level == epsilon):
            return (plan, f, g, run) if level == epsilon else (*_unrolled(cost, a, b, epsilon, 1, g.to(b)), run + 1)
        if plain and run > PLAIN:
            plain, level = False, max(epsilon, float(cost.max() - cost.min()))
            _, f, g = _unrolled(cost, a, b, level, 1)
        elif reached:
            level = max(epsilon, level / 2)
        elif not plain and min(cost.shape[-2:]) <= LARGEST:
            x, y = _step(plan, a, b)
            f, g, run = f + level * x, g + level * y, run + 1


def _round(
    cost: Tensor, f: Tensor, g: Tensor, a: Tensor, b: Tensor, epsilon: float, enough: float, most: int
) -> tuple[Tensor, Tensor, Tensor, int, float]:
    """At most a round, until the residual is small enough: plan, potentials, iterations run, residual."""
    kernel = torch.sub(g.double()[:, None], cost).add_(f[..., None]).div_(epsilon).exp_().to(cost)
    u, run = torch.ones_like(a), 0
    while True:
        v = (b / (u[:, None] @ kernel)[:, 0]).where(b > 0, 0)
        sums = (kernel @ v[..., None])[..., 0]
        off = float((u * sums - a).abs().sum(-1).max())
        if not off > enough or run == min(ROUND, most) or max(float(u.max()), float(v.max())) > GROWTH:
            break
        u = (a / sums).where(a > 0, 0)
        run += 1
    plan = kernel.mul_(u[..., None]).mul_(v[:, None])
    return plan, f + epsilon * u.double().log(), g + epsilon * v.double().log(), run, off


def _step(plan: Tensor, a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    """Newton's changes (N, n) and (N, m) of the potentials in units of ε, none above 1: farther, nothing is linear."""
    x, y = balance(plan, a - plan.sum(-1), b - plan.sum(-2))
    shift = (x.amax(-1, keepdim=True) + x.amin(-1, keepdim=True)) / 2
    x, y = x - shift, y + shift
    size = torch.maximum(x.abs().amax(-1), y.abs().amax(-1)).clamp(min=1)[:, None]
    return x / size, y / size
