"""A score with its 95 % interval, by the percentile bootstrap over items (Efron and Tibshirani 1993, chapter 13).

Every metric here is a function of sums over items: a mean is (sum, count), micro F1 is (hits, predicted, true), corpus
BLEU is the sums of its n-gram counts. So an item is a row of statistics, and resampling the items costs no rescoring.
Intervals of metrics over the same items use the same resamples, for they share the seed.
The percentile interval has no width when every item scores alike: an interval of [1, 1] says "no error seen in n".
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float64]
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
    random = np.random.default_rng(seed)
    block = max(1, _AT_ONCE // (count * width))
    sums = np.concatenate(
        [
            rows[random.integers(count, size=(min(block, resamples - start), count))].sum(axis=1)
            for start in range(0, resamples, block)
        ]
    )
    low, high = np.percentile(score(sums), [2.5, 97.5])
    return Estimate(float(score(rows.sum(axis=0))), float(low), float(high))


def mean(scores: Sequence[float] | Floats, *, seed: int = 0) -> Estimate:
    """The mean of one score an item, and its interval."""
    values = np.asarray(scores, dtype=np.float64)
    return estimate(np.stack([values, np.ones_like(values)], axis=1), ratio(0, 1), seed=seed)


def ratio(above: int, below: int) -> Score:
    """The score that divides one sum by another; nothing by nothing is 0."""
    return lambda sums: divide(sums[..., above], sums[..., below])


def divide(above: Floats, below: Floats) -> Floats:
    """Element by element, where 0/0 is 0, as scikit-learn's ``zero_division=0``."""
    return np.divide(above, below, out=np.zeros_like(np.asarray(above, dtype=np.float64)), where=below != 0)
