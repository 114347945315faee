"""Centred kernel alignment: how far two spaces place the same samples alike, up to rotation and scale.

Similarity of Neural Network Representations Revisited
Simon Kornblith, Mohammad Norouzi, Honglak Lee, Geoffrey Hinton, arXiv 1905.00414 (linear CKA, of biased HSIC)

Feature Selection via Dependence Maximization
Le Song, Alex Smola, Arthur Gretton, Justin Bedo, Karsten Borgwardt, JMLR 13, 2012 (unbiased HSIC, equation 5)

Do Wide and Deep Networks Learn the Same Things?
Thao Nguyen, Maithra Raghu, Simon Kornblith, arXiv 2010.15327 (CKA of unbiased HSIC)

Symbols: N samples, D and E widths of the two spaces; row i of both is sample i; K = XXᵀ and L = YYᵀ of features that
are centred, which changes neither HSIC.

differs from the code released with 2405.07987: a constant of 1e-6 in the denominator, which makes small features score
less, is left out.
"""

import math

import torch
from torch import Tensor

from mmbridge.alignment.clouds import checked, varies


def hsic(first: Tensor, second: Tensor, *, unbiased: bool = True) -> float:
    """The Hilbert–Schmidt independence criterion of linear kernels: 0 where no linear map of one tells of the other.

    Biased: tr(KL) / (N−1)². Unbiased, with K̃ and L̃ for K and L without their diagonals:

        [tr(K̃L̃) + 1ᵀK̃1 · 1ᵀL̃1 / ((N−1)(N−2)) − 2 · 1ᵀK̃L̃1 / (N−2)] / (N(N−3)).

    In float64; neither an N × N nor a D × E matrix is made but the smaller of them.

    Args:
        first, second: (N, D) and (N, E).
        unbiased: takes N ≥ 4 samples, the other 2.

    Raises:
        DataError: there are too few samples, or some are not finite.
    """
    x, y = _centred(first, second, unbiased)
    return float(_hsic(x, y, unbiased))


def cka(first: Tensor, second: Tensor, *, unbiased: bool = True) -> float:
    """HSIC(X, Y) / √(HSIC(X, X) HSIC(Y, Y)): 1 where spaces differ by rotation, scale and shift.

    Of unrelated spaces, the unbiased one is about 0, also below it; its HSIC is 0 on average whatever N is. The biased
    one, between 0 and 1, nears 1 as widths outgrow N, related or not: read it against ``biased_chance``.
    nan where a space does not vary or, unbiased, its HSIC with itself comes out at nothing or less.

    Args:
        first, second: (N, D) and (N, E).
        unbiased: takes N ≥ 4 samples, the other 2.

    Raises:
        DataError: as ``hsic``.
    """
    x, y = _centred(first, second, unbiased)
    if not (varies(first) and varies(second)):
        return math.nan
    alone = [_hsic(each, each, unbiased) for each in (x, y)]
    return float(_hsic(x, y, unbiased) / (alone[0].sqrt() * alone[1].sqrt())) if min(alone) > 0 else math.nan


def biased_chance(first: Tensor, second: Tensor) -> float:
    """What biased CKA is on average over all permutations of one side's samples: tr K tr L / ((N−1) |K| |L|).

    In closed form, for the denominator stays as it is, and over permutations L_ii is tr L / N on average, L_ij
    (i ≠ j) −tr L / (N(N−1)). By the same count that of unbiased HSIC is 0. nan where a space does not vary.

    Args:
        first, second: (N, D) and (N, E), N ≥ 2.

    Raises:
        DataError: as ``hsic``.
    """
    x, y = _centred(first, second, unbiased=False)
    sizes = [_together(each, each).sqrt() for each in (x, y)]
    traces = x.square().sum() * y.square().sum()
    return float(traces / ((len(x) - 1) * sizes[0] * sizes[1])) if min(sizes) > 0 else math.nan


def _centred(first: Tensor, second: Tensor, unbiased: bool) -> tuple[Tensor, Tensor]:
    assert len(first) == len(second), "row i of both is sample i"
    for each in (first, second):
        checked(each, "samples", 4 if unbiased else 2)
    x, y = first.double(), second.double()
    return x - x.mean(0), y - y.mean(0)


def _hsic(x: Tensor, y: Tensor, unbiased: bool) -> Tensor:
    """Of centred features."""
    n = len(x)
    if not unbiased:
        return _together(x, y) / (n - 1) ** 2
    diagonals = [each.square().sum(1) for each in (x, y)]
    rows = [each @ each.sum(0) - of for each, of in zip((x, y), diagonals, strict=True)]  # of K̃ and of L̃
    trace = _together(x, y) - diagonals[0] @ diagonals[1]
    apart = rows[0].sum() * rows[1].sum() / ((n - 1) * (n - 2))
    return (trace + apart - 2 / (n - 2) * (rows[0] @ rows[1])) / (n * (n - 3))


def _together(x: Tensor, y: Tensor) -> Tensor:
    """tr(XXᵀYYᵀ) = |XᵀY|²."""
    if x.shape[1] * y.shape[1] <= len(x) ** 2:
        return (x.mT @ y).square().sum()
    return torch.sum((x @ x.mT) * (y @ y.mT))
