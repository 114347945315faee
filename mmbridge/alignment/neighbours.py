"""Whether two spaces agree on which samples are near each other: mutual k-nearest neighbours and CKNNA.

The Platonic Representation Hypothesis
Minyoung Huh, Brian Cheung, Tongzhou Wang, Phillip Isola, arXiv 2405.07987

Symbols: N samples, D and E widths of the two spaces; row i of both is sample i. The spaces need share no dimension.

differs from the released code: there values are clamped by one threshold for all layers of a model (``clamped`` takes
(N, L, D) for that); a constant of 1e-6 in CKNNA's denominator, which makes small kernels score less, is left out; and
there a score is the greatest over all pairs of layers, which is a choice of who calls.
differs from the paper in CKNNA: it centres kernels by rows, over all samples. Here as there released: unbiased HSIC of
kernels that are zero off the mutual neighbours. Such a kernel is not symmetric, and the first term of that HSIC counts
only pairs in which each is the other's neighbour in both spaces.
"""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import normalize

from mmbridge.alignment.clouds import checked, varies
from mmbridge.errors import DataError

RELEASED_CLAMP = 0.95


@dataclass(frozen=True, slots=True)
class MutualNeighbours:
    """``overlaps`` (N,) in float64, what part of each sample's k neighbours the spaces share; ``mean`` is the score."""

    overlaps: Tensor

    @property
    def mean(self) -> float:
        return float(self.overlaps.mean())


def clamped(features: Tensor, quantile: float = RELEASED_CLAMP) -> Tensor:
    """Features (N, …) in float64, none further from 0 than the mean over samples of a quantile of |values| in each."""
    values = features.double()
    sizes = values.abs().flatten(1)
    bound = float(torch.stack([torch.quantile(of, quantile) for of in sizes]).mean())
    return values.clamp(-bound, bound)


def nearest(features: Tensor, k: int = 10, clamp: float | None = RELEASED_CLAMP) -> Tensor:
    """(N, k), the samples whose features have the largest cosine with each one's, itself left out, nearest first.

    Where layers are compared with layers, this is done once for each, and ``overlaps`` for each pair.

    Args:
        features: (N, D).
        k: how many.
        clamp: the quantile at which values are clamped first, as released; it depends on the axes. None: they are not.

    Raises:
        DataError: there are no more than k samples, or some are not finite.
    """
    return likeness(features, k, clamp).topk(k).indices


def likeness(features: Tensor, k: int = 10, clamp: float | None = RELEASED_CLAMP) -> Tensor:
    """(N, N) in float64, the cosines that ``nearest`` goes by, of a sample with itself −∞; arguments, errors alike."""
    units = _units(features, k, clamp)
    return (units @ units.mT).fill_diagonal_(-torch.inf)


def overlaps(first: Tensor, second: Tensor) -> Tensor:
    """(N,) in float64 of two ``nearest`` (N, k): |first_i ∩ second_i| / k."""
    shared = (first[:, :, None] == second[:, None, :]).any(-1)
    return shared.double().mean(-1)


def mutual_neighbours(
    first: Tensor, second: Tensor, k: int = 10, clamp: float | None = RELEASED_CLAMP
) -> MutualNeighbours:
    """1/N Σ_i |near(i) ∩ near'(i)| / k, between 0 and 1; ``neighbour_chance`` where the spaces have nothing in common.

    Args:
        first, second: (N, D) and (N, E).
        k, clamp: as for ``nearest``.

    Raises:
        DataError: as ``nearest``.
    """
    assert len(first) == len(second), "row i of both is sample i"
    return MutualNeighbours(overlaps(nearest(first, k, clamp), nearest(second, k, clamp)))


def neighbour_chance(k: int, samples: int) -> float:
    """k / (N − 1): what ``mutual_neighbours`` is on average when the samples of one space are shuffled."""
    return k / (samples - 1)


def cknna(first: Tensor, second: Tensor, k: int = 10, clamp: float | None = RELEASED_CLAMP) -> float:
    """CKA of neighbours only: h(K, L) / √(h(K, K) h(L, L)), K and L the kernels of cosines.

    h(K, L) is Song et al.'s unbiased HSIC of K∘α and L∘α, where α_ij is 1 if j is among the k neighbours of i in both
    spaces. With K̃ and L̃ for these,

        [tr(K̃L̃) + 1ᵀK̃1 · 1ᵀL̃1 / ((N−1)(N−2)) − 2 · 1ᵀK̃L̃1 / (N−2)] / (N(N−3)).

    1 where spaces differ by a rotation. Where the samples of one are shuffled it nears 0 as N outgrows k; of few
    samples it is well above, and no exact chance is known. nan where a space has no kernel to compare (one of the roots
    is of nothing or less) or does not vary.

    Args:
        first, second: (N, D) and (N, E), N ≥ 4.
        k, clamp: as for ``nearest``, k ≥ 2.

    Raises:
        DataError: as ``nearest``, or there are fewer than 4 samples.
    """
    assert len(first) == len(second), "row i of both is sample i"
    assert k >= 2, "one neighbour has no structure to compare"
    units = [_units(each, max(k, 3), clamp) for each in (first, second)]
    if not all(map(varies, units)):
        return float("nan")
    kernels = [each @ each.mT for each in units]
    near = [torch.zeros(len(each), len(each)).to(each).scatter_(1, nearest(each, k, None), 1) for each in units]
    mutual = near[0] * near[1]
    both = _masked_hsic(kernels[0] * mutual, kernels[1] * mutual)
    alone = [_masked_hsic(of * by, of * by) for of, by in zip(kernels, near, strict=True)]
    return float(both / (alone[0] * alone[1]).sqrt()) if min(alone) > 0 else float("nan")


def _masked_hsic(k: Tensor, l: Tensor) -> Tensor:  # noqa: E741
    """Of kernels (N, N) with zeros on the diagonal, up to the factor 1 / (N(N−3)) that ``cknna`` is free of."""
    n = len(k)
    apart = k.sum() * l.sum() / ((n - 1) * (n - 2))
    return (k * l.mT).sum() + apart - 2 / (n - 2) * (k.sum(0) @ l.sum(1))


def _units(features: Tensor, k: int, clamp: float | None) -> Tensor:
    """(N, D) in float64: clamped, of length 1."""
    if len(features) <= k:
        raise DataError("neighbours", f"expected more than {k} samples, found {len(features)}", "measure more samples")
    checked(features, "neighbours")
    return normalize(features.double() if clamp is None else clamped(features, clamp), dim=-1)
