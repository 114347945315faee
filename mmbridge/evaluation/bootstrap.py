"""A score with its 95 % interval, by the percentile bootstrap over items (Efron and Tibshirani 1993, chapter 13).

Every metric here is a function of sums over items: a mean is (sum, count), micro F1 is (hits, predicted, true), corpus
BLEU is the sums of its n-gram counts. So an item is a row of statistics, and resampling the items costs no rescoring.
A median is the one that is not, and is taken of the items anew.
Intervals of metrics over the same items use the same resamples, for they share the seed.
The percentile interval has no width when every item scores alike: an interval of [1, 1] says "no error seen in n".
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float64]
Numbers = NDArray[np.int64]
Score = Callable[[Floats], Floats]
"""Sums of statistics (..., K) to scores (...)."""

RESAMPLES = 1000
_AT_ONCE = 4_000_000  # numbers gathered at a time: 32 MB


@dataclass(frozen=True, slots=True)
class Estimate:
    """A score and its 95 % interval."""

    value: float
    low: float
    high: float

    def contains(self, value: float) -> bool:
        """Whether the interval contains ``value``: "at chance" when that is chance."""
        return self.low <= value <= self.high

    def above(self, value: float) -> bool:
        """Whether the interval lies wholly above ``value``: "better than" when that is the control."""
        return self.low > value

    def __str__(self) -> str:
        return f"{self.value:.3f} [{self.low:.3f}, {self.high:.3f}]"


def estimate(statistics: ArrayLike, score: Score, *, resamples: int = RESAMPLES, seed: int = 0) -> Estimate:
    """The score of all items together and its interval.

    Args:
        statistics: (N, K), a row of statistics for every item; N ≥ 1.
        score: from sums of statistics (..., K) to scores (...).
        resamples: how often N items are drawn with replacement.
        seed: of the draws.
    """
    rows: Floats = np.asarray(statistics, dtype=np.float64)
    assert rows.ndim == 2, "statistics are (items, numbers)"
    assert len(rows), "no items to score"
    count, width = rows.shape
    sums = np.concatenate([rows[drawn].sum(axis=1) for drawn in _draws(count, count * width, resamples, seed)])
    return _between(float(score(rows.sum(axis=0))), score(sums))


def mean(scores: ArrayLike, owners: ArrayLike | None = None, *, seed: int = 0) -> Estimate:
    """The mean of one score an item, and its interval.

    Args:
        scores: (N,).
        owners: (N,), numbers of what the items belong to, where that is what is drawn, each with all its items.
    """
    values = np.asarray(scores, dtype=np.float64)
    whose = _numbered(len(values), owners)
    return estimate(np.stack([np.bincount(whose, values), np.bincount(whose)], axis=1), ratio(0, 1), seed=seed)


def median(
    scores: ArrayLike,
    owners: ArrayLike | None = None,
    *,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> Estimate:
    """The median of one score an item, and its interval; arguments as for ``mean``."""
    values = np.asarray(scores, dtype=np.float64)
    assert len(values), "no items to score"
    order = np.argsort(values, kind="stable")
    values, whose = values[order], _numbered(len(values), owners)[order]
    count = int(whose.max()) + 1
    found = [_weighted_median(values, np.ones((1, len(values)), np.int64))]
    for drawn in _draws(count, count + len(values), resamples, seed):
        times = np.stack([np.bincount(row, minlength=count) for row in drawn])
        found.append(_weighted_median(values, times[:, whose]))
    return _between(float(found[0][0]), np.concatenate(found[1:]))


def _numbered(items: int, owners: ArrayLike | None) -> Numbers:
    """(N,), the owner of each item, numbered from 0 without gaps; its own where there is none."""
    return np.arange(items) if owners is None else np.unique(owners, return_inverse=True)[1]


def _draws(count: int, width: int, resamples: int, seed: int) -> Iterator[Numbers]:
    """Numbers of items drawn with replacement, (some, count), of all resamples; ``width`` numbers are made of a row."""
    random = np.random.default_rng(seed)
    block = max(1, _AT_ONCE // width)
    for start in range(0, resamples, block):
        yield random.integers(count, size=(min(block, resamples - start), count))


def _between(value: float, resampled: Floats) -> Estimate:
    low, high = np.percentile(resampled, [2.5, 97.5])
    return Estimate(value, float(low), float(high))


def _weighted_median(ordered: Floats, times: Numbers) -> Floats:
    """(R,), of values (N,) in ascending order, each as often as ``times`` (R, N) says."""
    sums = times.cumsum(axis=1)
    half = sums[:, -1:] / 2
    middle: Floats = (ordered[(sums < half).sum(axis=1)] + ordered[(sums <= half).sum(axis=1)]) / 2
    return middle


def ratio(above: int, below: int) -> Score:
    """The score that divides one sum by another; nothing by nothing is 0."""
    return lambda sums: divide(sums[..., above], sums[..., below])


def divide(above: Floats, below: Floats) -> Floats:
    """Element by element, where 0/0 is 0, as scikit-learn's ``zero_division=0``."""
    return np.divide(above, below, out=np.zeros_like(np.asarray(above, dtype=np.float64)), where=below != 0)
