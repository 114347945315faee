"""Means over samples and over pairs of samples from sums by lot, with intervals by drawing lots anew.

Samples that show one medium are in one lot. A lot drawn twice counts twice, but its samples are never paired with their
own copies: pairs between two copies of one sample would lift the mean over all pairs.

Symbols: G lots, R resamples, L depths, 1 + R: the sums as they are, then those of the resamples.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from mmbridge.evaluation.bootstrap import RESAMPLES, Estimate

Resampled = Tensor
"""(L, 1 + R) in float64: a score at every depth, then of every resample."""


@dataclass(frozen=True, slots=True)
class Lots:
    """``times`` (1 + R, G): how often each lot is drawn, first all of them once; ``counts`` (G,) its samples."""

    times: Tensor
    counts: Tensor

    def means(self, sums: Tensor) -> Resampled:
        """Of one figure a sample, from sums (L, G)."""
        return (sums @ self.times.T) / (self.times @ self.counts)

    def all_pairs(self, products: Tensor) -> Resampled:
        """Over all pairs of samples i, j, (i, i) among them, of what products (L, G, G) between lots sum."""
        own = torch.diagonal(products, dim1=-2, dim2=-1)
        inside = self.times @ self.counts.square()
        return (self._between(products) + own @ self.times.T) / (self._pairs(self.counts) + inside)

    def other_pairs(self, products: Tensor, beside: Tensor | None = None) -> Resampled:
        """The same over pairs of different lots alone, so that neither shows a medium of the other. NaN where there is
        one lot.

        Args:
            beside: (G,) the samples of the second side, if they are others than those of the first.
        """
        pairs = self._pairs(self.counts if beside is None else beside)
        return self._between(products) / torch.where(pairs > 0, pairs, torch.nan)

    def _between(self, products: Tensor) -> Resampled:
        """What pairs of different lots add."""
        own = torch.diagonal(products, dim1=-2, dim2=-1)
        whole = torch.einsum("rg,lgh,rh->lr", self.times, products, self.times)
        return whole - own @ self.times.square().T

    def _pairs(self, beside: Tensor) -> Tensor:
        """(1 + R,) how many pairs of different lots there are."""
        first, second = self.times * self.counts, self.times * beside
        return first.sum(dim=1) * second.sum(dim=1) - (first * second).sum(dim=1)


FEWEST = 10
"""Lots that say something of how a score varies."""


def lots(counts: Tensor, *, resamples: int = RESAMPLES, seed: int = 0) -> Lots:
    """Draws lots that have samples, as many as there are, with replacement. From fewer than ``FEWEST`` nothing is
    drawn: scores then have no interval.

    Args:
        counts: (G,) the samples of each.
    """
    filled = counts.nonzero().flatten().numpy()
    drawn = np.random.default_rng(seed).choice(filled, size=(resamples, len(filled)))
    times = np.stack([np.bincount(row, minlength=len(counts)) for row in drawn]).astype(np.float64)
    if len(filled) < FEWEST:
        times[:] = np.nan
    once = (counts > 0).double()[None]
    return Lots(torch.cat([once, torch.from_numpy(times)]), counts)


def estimates(found: Resampled) -> tuple[tuple[Estimate, ...], Estimate]:
    """At every depth, and of the mean over depths."""
    return tuple(_estimate(row) for row in found), _estimate(found.mean(dim=0))


def _estimate(row: Tensor) -> Estimate:
    value, *resampled = row.tolist()
    low, high = np.nanpercentile(resampled, [2.5, 97.5]) if np.isfinite(resampled).any() else (np.nan, np.nan)
    return Estimate(value, float(low), float(high))


def products(first: Sequence[Tensor], second: Sequence[Tensor]) -> Tensor:
    """(L, G, G), of sums (G, D) at L depths, whose widths may differ from depth to depth."""
    return torch.stack([one @ other.T for one, other in zip(first, second, strict=True)])
