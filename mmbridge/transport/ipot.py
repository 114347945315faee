"""Unregularised optimal transport by proximal steps, each like one iteration of Sinkhorn's.

A Fast Proximal Point Method for Computing Exact Wasserstein Distance
Yujia Xie, Xiangfeng Wang, Ruijia Wang, Hongyuan Zha, arXiv 1802.04307 (IPOT)

UNITER: UNiversal Image-TExt Representation Learning
Yen-Chun Chen, Linjie Li, Licheng Yu, Ahmed El Kholy, Faisal Ahmed, Zhe Gan, Yu Cheng, Jingjing Liu, arXiv 1909.11740
(β = 0.5, 50 steps, padding masked; its rows are the visual tokens)

differs from both: scalings are kept as logarithms, so that no β is too small.
"""

import torch
from torch import Tensor

from mmbridge.transport.plan import Transport, log, prepared, residual, uniform


def ipot(
    cost: Tensor, beta: float = 0.5, rows: Tensor | None = None, columns: Tensor | None = None, *, iterations: int = 50
) -> Transport:
    """A plan that nears, with more steps, one of least ⟨C, P⟩. Autograd goes through all steps.

    After t steps it is the entropic plan for ε = β / t and for marginals near a and b, and its potentials are that
    plan's: P = exp((f + g − C) / ε).

    Args:
        cost: (…, n, m), any float dtype; computed in float64 where it is, else in float32.
        beta: what holds a step near the plan before it, in units of the cost.
        rows, columns: marginals as ``sinkhorn`` takes them. A step scales rows, then columns.
        iterations: how many steps, at least one.
    """
    cost, a, b = prepared(cost, rows, columns)
    log_a, log_b, real_a, real_b = log(a), log(b), a > 0, b > 0
    f, g = torch.zeros_like(a), torch.zeros_like(b)
    plan, across = torch.zeros_like(cost), log(uniform(real_b)).to(b)
    for _ in range(iterations):
        kernel = plan - cost / beta
        down = log_a - torch.logsumexp(kernel + across[..., None, :], -1)
        across = log_b - torch.logsumexp(kernel + down[..., None], -2)
        moved = down.where(real_a, 0), across.where(real_b, 0)
        plan = kernel + moved[0][..., None] + moved[1][..., None, :]
        f, g = f + moved[0], g + moved[1]
    plan = plan.exp().where(real_a[..., None] & real_b[..., None, :], 0)
    epsilon = beta / iterations
    return Transport(plan, epsilon * f, epsilon * g, iterations, residual(plan, a, b))
