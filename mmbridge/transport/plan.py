"""What every way to a transport plan starts from and ends in.

Symbols: n rows and m columns of a plan, a (…, n) and b (…, m) its marginals, C (…, n, m) the cost, P the plan.
"""

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, slots=True)
class Transport:
    """A plan and how it was found.

    Attributes:
        plan: P (…, n, m).
        rows, columns: its potentials f (…, n) and g (…, m), in units of the cost; of no meaning where there is no mass.
        iterations: how many were run.
        residual: (…), how far the marginals are off: Σ|P1 − a| + Σ|Pᵀ1 − b|. It has no gradient.
    """

    plan: Tensor
    rows: Tensor
    columns: Tensor
    iterations: int
    residual: Tensor


def uniform(mask: Tensor) -> Tensor:
    """The marginal (…, n), in float32, spread evenly over what ``mask`` (…, n) has true; zero where it has nothing."""
    return mask.float() / mask.sum(-1, keepdim=True).clamp(min=1)


def prepared(cost: Tensor, rows: Tensor | None, columns: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
    """C, a and b in one dtype, float64 where the cost is and else float32.

    Marginals left out are uniform with total 1. Where one of the two has no mass the other loses its own. The cost is
    zero where a marginal is: what it had there, be it NaN, reaches nothing.
    """
    cost = cost if cost.dtype == torch.float64 else cost.float()
    a, b = _marginal(rows, cost, cost.shape[:-1]), _marginal(columns, cost, cost.shape[:-2] + cost.shape[-1:])
    if rows is None and columns is None and cost.numel():
        return cost, a, b
    real = (a > 0)[..., None] & (b > 0)[..., None, :]
    a, b = a.where(real.any(-1), 0), b.where(real.any(-2), 0)
    return (cost if bool(real.all()) else cost.where(real, 0)), a, b


def log(marginal: Tensor) -> Tensor:
    """The logarithm; −inf, and without a gradient, at zero."""
    real = marginal > 0
    return marginal.where(real, 1).log().where(real, -torch.inf)


@torch.no_grad()
def residual(plan: Tensor, a: Tensor, b: Tensor) -> Tensor:
    """Σ|P1 − a| + Σ|Pᵀ1 − b| of each plan: (…)."""
    return (plan.sum(-1) - a).abs().sum(-1) + (plan.sum(-2) - b).abs().sum(-1)


def _marginal(given: Tensor | None, cost: Tensor, shape: torch.Size) -> Tensor:
    if given is None:
        return cost.new_full(shape, 1 / max(1, shape[-1]))
    return given.to(cost).expand(shape)
