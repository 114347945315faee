"""What changes of a plan's potentials change in its marginals, and back: one linear system.

Sinkhorn-Newton method for Entropic Optimal Transport
Christoph Brauer, Christian Clason, Dirk Lorenz, Benedikt Wirth, arXiv 1710.06635

With r = P1 and c = Pᵀ1, raising the potentials of a plan P by (x, y), in units of ε, raises its marginals, to first
order, by (r·x + Py, Pᵀx + c·y). The system is singular where potentials can move without moving mass: rows and columns
against each other, in each part of the plan that exchanges nothing with the rest.

differs from the paper: it solves by conjugate gradients; here one side is eliminated and the other decomposed.
"""

import torch
from torch import Tensor

_NOTHING = 1e-13
"""Eigenvalues, between 0 and 1, below which no mass moves."""


def balance(plan: Tensor, rows: Tensor, columns: Tensor) -> tuple[Tensor, Tensor]:
    """The smallest changes of the potentials that change the marginals by ``rows`` and ``columns``.

    Computed in float64, in time that is cubic in the shorter side. What cannot be had is left out.

    Args:
        plan: (N, n, m), not negative.
        rows: (N, n).
        columns: (N, m).

    Returns:
        x (N, n) and y (N, m) in float64, zero where the plan has no mass.
    """
    if plan.shape[-2] < plan.shape[-1]:
        y, x = balance(plan.mT, columns, rows)
        return x, y
    with torch.autocast(plan.device.type, enabled=False):
        plan, rows, columns = plan.double(), rows.double()[..., None], columns.double()[..., None]
        down, across = _inverse(plan.sum(-1, keepdim=True)), _inverse(plan.sum(-2)[..., None])
        scaled = down.sqrt() * plan * across.sqrt().mT
        own = torch.eye(plan.shape[-1], dtype=plan.dtype, device=plan.device)
        values, vectors = torch.linalg.eigh(own - scaled.mT @ scaled)
        weights = torch.where(values > _NOTHING, 1 / values, 0)[..., None]
        wanted = across.sqrt() * (columns - plan.mT @ (down * rows))
        y = across.sqrt() * (vectors @ (weights * (vectors.mT @ wanted)))
        x = down * (rows - plan @ y)
    return x[..., 0], y[..., 0]


def _inverse(mass: Tensor) -> Tensor:
    return torch.where(mass > 0, 1 / mass, 0)
