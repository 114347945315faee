"""The gap between two modalities, and the cone that each of them keeps to.

Mind the Gap: Understanding the Modality Gap in Multi-modal Contrastive Representation Learning
Weixin Liang, Yuhui Zhang, Yongchan Kwon, Serena Yeung, James Zou, arXiv 2203.02053

Symbols: N and R states of two groups, D width, u = x / |x|.
"""

import torch
from torch import Tensor

from mmbridge.alignment.clouds import directions


def gap(first: Tensor, second: Tensor) -> float:
    """|Δ| for Δ = 1/N Σ u_i − 1/R Σ u'_j: between 0, where the mean directions agree, and 2.

    In float64. 0 does not say that states match, only that their means do. Chance: of two random halves of one cloud
    Δ² is (1 − cone)(1/N + 1/R) on average, of N and R states.

    Args:
        first, second: (N, D) and (R, D).

    Raises:
        DataError: a group is empty, or some of its states are not finite.
    """
    mean, other = (_sum(each, 1)[0] / len(each) for each in (first, second))
    return float((mean - other).norm())


def cone(points: Tensor) -> float:
    """The mean cosine of a state with another of its group, 1/(N(N−1)) Σ_{i≠j} u_i · u_j: 1 where all are one
    direction, 0 on average where directions are random.

    In float64, as (|Σ u|² − Σ |u|²) / (N(N−1)); no N × N matrix is made.

    Args:
        points: (N, D), N ≥ 2.

    Raises:
        DataError: there are fewer than 2 states, or some are not finite.
    """
    total, squares = _sum(points, 2)
    return float((total.square().sum() - squares) / (len(points) * (len(points) - 1)))


def _sum(points: Tensor, least: int) -> tuple[Tensor, Tensor]:
    """Σ u (D,) and Σ |u|², which falls short of N by states of no length."""
    total = torch.zeros(points.shape[1], dtype=torch.float64, device=points.device)
    squares = total.new_zeros(())
    for units in directions(points, "states", least):
        total += units.sum(0)
        squares += units.square().sum()
    return total, squares
