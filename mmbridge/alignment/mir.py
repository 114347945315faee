"""Modality Integration Rate: the Fréchet distance of perceptual tokens from text, over all depths.

Deciphering Cross-Modal Alignment in Large Vision-Language Models with Modality Integration Rate
Qidong Huang, Xiaoyi Dong, Pan Zhang, Yuhang Zang, Yuhang Cao, Jiaqi Wang, Dahua Lin, Weiming Zhang, Nenghai Yu,
arXiv 2410.07167

Symbols: A perceptual tokens and B tokens of text at one depth, of all samples together, D width.

As released: the standard deviation of norms is about their mean though outliers are sought about their median, outliers
count in both and in the median that takes their place, and a median of an even number is the lower of the middle two.
The paper sums over the outputs of blocks (depths 1 to L), the last of which is normed in transformers' hidden states.

differs from the released code: what it calls fast, its default, starts its iteration for √(S_V S_T) at a fixed point
and returns S_V S_T itself; its figures are no Fréchet distances. Here as in its accurate mode, in float64 throughout,
and by singular values, which need no covariance and no root of one, so that A and B may be less than D.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from mmbridge.alignment.clouds import AT_ONCE, checked
from mmbridge.errors import DataError


def mir_term(tokens: Tensor, text: Tensor) -> float:
    """One depth's term, FID = |μ_V − μ_T|² + tr(S_V + S_T − 2 √(S_V S_T)), of tamed clouds; 0 where they are alike.

    First both are divided by the mean length of text's states, then in each cloud a state whose length is more than
    three standard deviations off the median length gives way to the median state, coordinate by coordinate.
    A sample's fluctuation counts as distance: two samples of one cloud have less the larger A and B are, beside D.

    Args:
        tokens: (A, D), A ≥ 2.
        text: (B, D), B ≥ 2.

    Raises:
        DataError: there are fewer than 2 states on a side, some are not finite, or all of text's are zero.
    """
    mean = float(checked(text, "text tokens", 2).mean())
    if not mean:
        raise DataError("text tokens", "expected states of some length, found zeros only")
    return _frechet(_tamed(tokens, mean, "perceptual tokens"), _tamed(text, mean, "text tokens"))


def frechet(first: Tensor, second: Tensor) -> float:
    """|μ − μ'|² + tr(S + S' − 2 √(S S')), the squared 2-Wasserstein distance of two Gaussians with their moments.

    With S = FᵀF and S' = GᵀG, tr √(S S') is the sum of the singular values of FGᵀ. F is the triangle of a QR
    factorisation of the centred cloud, so that nothing is squared: exact in float64 for singular covariances too.

    Args:
        first, second: (A, D) and (B, D), at least 2 of each.

    Raises:
        DataError: there are fewer than 2 states on a side, or some are not finite.
    """
    for each in (first, second):
        checked(each, "states", 2)
    return _frechet(_Tamed(first), _Tamed(second))


def mir(terms: Sequence[float]) -> float:
    """log₁₀ Σ_l FID_l over depths: lower is better integrated; −inf where all clouds are alike."""
    total = math.fsum(terms)
    return math.log10(total) if total > 0 else -math.inf


@dataclass(frozen=True, slots=True)
class _Tamed:
    """A cloud (N, D) times ``scale``, in which ``outliers`` (N,) are all one ``median`` (D,) state."""

    points: Tensor
    scale: float = 1.0
    outliers: Tensor | None = None
    median: Tensor | None = None

    def blocks(self) -> Iterator[Tensor]:
        """In float64; of 2 D states or more, so that a factor grows by steps that are larger than itself."""
        rows = max(2 * self.points.shape[1], AT_ONCE // self.points.shape[1])
        for start in range(0, len(self.points), rows):
            piece = self.points[start : start + rows].double()
            if self.outliers is not None and self.median is not None:
                piece = self.median.double().where(self.outliers[start : start + rows, None], piece)
            yield piece * self.scale


def _tamed(points: Tensor, unit: float, what: str) -> _Tamed:
    lengths = checked(points, what, 2)
    outliers = (lengths - lengths.median()).abs() > 3 * lengths.std()
    columns = max(1, AT_ONCE // len(points))  # medians along rows copy what they are given
    if not outliers.any():
        return _Tamed(points, 1 / unit)
    median = torch.cat([piece.median(0).values for piece in torch.split(points, columns, dim=1)])
    return _Tamed(points, 1 / unit, outliers, median)


def _frechet(first: _Tamed, second: _Tamed) -> float:
    (mean, factor), (other, its) = (_moments(each) for each in (first, second))
    apart = (mean - other).square().sum() + factor.square().sum() + its.square().sum()
    shared = torch.linalg.svdvals(factor @ its.mT).sum()
    return max(0.0, float(apart - 2 * shared))


def _moments(cloud: _Tamed) -> tuple[Tensor, Tensor]:
    """The mean (D,) and F (min(N, D), D), FᵀF = S the unbiased covariance."""
    count, width = cloud.points.shape
    mean = torch.stack([piece.sum(0) for piece in cloud.blocks()]).sum(0) / count
    factor = mean.new_zeros(0, width)
    for piece in cloud.blocks():
        factor = torch.linalg.qr(torch.cat([factor, piece - mean]), mode="r").R
    return mean, factor / math.sqrt(count - 1)
