"""How far two weighted sets of points are apart: entropic transport between them, less that within each.

Interpolating between Optimal Transport and MMD using Sinkhorn Divergences
Jean Feydy, Thibault Séjourné, François-Xavier Vialard, Shun-ichi Amari, Alain Trouvé, Gabriel Peyré, arXiv 1810.08278
"""

from collections.abc import Callable

import torch
from torch import Tensor

from mmbridge.transport.plan import log, prepared
from mmbridge.transport.sinkhorn import sinkhorn

Cost = Callable[[Tensor, Tensor], Tensor]
"""Points (…, n, D) and (…, m, D) to costs (…, n, m)."""


def cosine_cost(points: Tensor, others: Tensor) -> Tensor:
    """1 − cos: between 0 and 2, and blind to lengths. In float64 where the points are, else in float32."""
    with torch.autocast(points.device.type, enabled=False):
        points, others = _exact(points), _exact(others)
        unit, other = (torch.nn.functional.normalize(each, dim=-1) for each in (points, others))
        return 1 - unit @ other.mT


def squared_cost(points: Tensor, others: Tensor) -> Tensor:
    """Half the squared distance. In float64 where the points are, else in float32."""
    points, others = _exact(points), _exact(others)
    return (points[..., :, None, :] - others[..., None, :, :]).square().sum(-1) / 2


def entropic_cost(
    cost: Tensor, epsilon: float, rows: Tensor | None = None, columns: Tensor | None = None, tolerance: float = 1e-5
) -> Tensor:
    """min ⟨C, P⟩ + ε KL(P | abᵀ) over plans: (…).

    The gradient is the plan with respect to the cost, and the potentials with respect to the marginals (envelope
    theorem). Value and gradient are those of the dual: near the tolerance, off by less than it.

    Args:
        cost, epsilon, rows, columns, tolerance: as for ``sinkhorn``; totals are 1.
    """
    cost, a, b = prepared(cost, rows, columns)
    with torch.no_grad():
        found = sinkhorn(cost, epsilon, a, b, tolerance=tolerance)
        f, g = ((each - epsilon * log(of)).where(of > 0, 0) for each, of in ((found.rows, a), (found.columns, b)))
    moved = (found.plan * (cost - cost.detach())).sum((-2, -1))
    return (a * f).sum(-1) + (b * g).sum(-1) + moved


def sinkhorn_divergence(
    points: Tensor,
    others: Tensor,
    epsilon: float,
    rows: Tensor | None = None,
    columns: Tensor | None = None,
    *,
    cost: Cost = squared_cost,
    tolerance: float = 1e-5,
) -> Tensor:
    """S = OT(x, y) − ½ OT(x, x) − ½ OT(y, y), by ``entropic_cost``: (…), differentiable.

    Not negative, and zero where both are the same set with the same weights and nowhere else (``cosine_cost``: the same
    directions).

    Args:
        points, others: x (…, n, D) and y (…, m, D).
        epsilon: the entropy's weight, in units of the cost.
        rows, columns: weights (…, n) and (…, m) of total 1, zero for what is padding; uniform where left out.
        cost: between points.
        tolerance: as for ``sinkhorn``.
    """
    between = entropic_cost(cost(points, others), epsilon, rows, columns, tolerance)
    within = entropic_cost(cost(points, points), epsilon, rows, rows, tolerance)
    return between - (within + entropic_cost(cost(others, others), epsilon, columns, columns, tolerance)) / 2


def _exact(points: Tensor) -> Tensor:
    return points if points.dtype == torch.float64 else points.float()
