"""Entropic optimal transport that may leave mass behind.

    min ⟨C, P⟩ + ε KL(P | abᵀ) + ρ KL(P1 | a) + ρ' KL(Pᵀ1 | b)  over P ≥ 0, with KL(p | q) = Σ p log(p / q) − p + q

Scaling Algorithms for Unbalanced Transport Problems
Lenaic Chizat, Gabriel Peyré, Bernhard Schmitzer, François-Xavier Vialard, arXiv 1607.05816

Symbols as in ``plan``. In the log domain throughout: P = a exp((f + g − C) / ε) b.
"""

import torch
from torch import Tensor

from mmbridge.transport.plan import Transport, log, prepared, residual


def unbalanced(
    cost: Tensor,
    epsilon: float,
    reach: float | tuple[float, float],
    rows: Tensor | None = None,
    columns: Tensor | None = None,
    *,
    iterations: int | None = None,
    tolerance: float = 1e-6,
    most: int = 10_000,
) -> Transport:
    """The plan whose marginals are near a and b, run to a tolerance or for a fixed number of iterations.

    The residual is that of what a solution fulfils: P1 = a exp(−f / ρ) and Pᵀ1 = b exp(−g / ρ'). Autograd goes through
    a fixed number of iterations; a plan run to a tolerance has no gradient.

    Args:
        cost: (…, n, m), any float dtype; computed in float64 where it is, else in float32.
        epsilon: the entropy's weight, in units of the cost.
        reach: ρ and ρ', or one for both, in units of the cost: where transport costs much more, mass is left behind.
            With ∞ a marginal is kept.
        rows, columns: a (…, n) and b (…, m), not negative, of any totals; uniform with total 1 where left out.
        iterations: how many; None to run to the tolerance.
        tolerance: of the residual, which every plan of the batch must reach. A larger one in what is returned says that
            ``most`` were not enough.
        most: iterations at which it is given up.
    """
    cost, a, b = prepared(cost, rows, columns)
    log_a, log_b = log(a), log(b)
    rho, other = reach if isinstance(reach, tuple) else (reach, reach)
    f, g, run = torch.zeros_like(a), torch.zeros_like(b), 0
    with torch.set_grad_enabled(torch.is_grad_enabled() and iterations is not None):
        while True:
            full = _balanced(cost, g, log_b, epsilon)
            if run == (most if iterations is None else iterations):
                break
            if iterations is None and run:
                off = (a * (torch.exp((f - full) / epsilon) - torch.exp(-f / rho)).abs()).sum(-1)
                if not float(off.max()) > tolerance:  # NaN ends it too
                    break
            f = full / (1 + epsilon / rho)
            g = _balanced(cost.mT, f, log_a, epsilon) / (1 + epsilon / other)
            run += 1
        exponents = (f[..., None] + g[..., None, :] - cost) / epsilon
        plan = torch.exp(log_a[..., None] + log_b[..., None, :] + exponents)
    wanted = a * torch.exp(-f / rho), b * torch.exp(-g / other)
    return Transport(plan, f, g, run, residual(plan, *wanted))


def _balanced(cost: Tensor, others: Tensor, log_others: Tensor, epsilon: float) -> Tensor:
    """The potentials (…, n) that would give rows just their marginal; zero where there are no columns."""
    full = -epsilon * torch.logsumexp((others[..., None, :] - cost) / epsilon + log_others[..., None, :], -1)
    return full.where(full.isfinite(), 0)
