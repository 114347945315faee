"""Intervals for scores of stored samples that are not means: samples are left out, or drawn anew.

Bradley Efron, Robert Tibshirani: An Introduction to the Bootstrap, 1993, chapters 11 (jackknife) and 13 (percentiles)
"""

from collections.abc import Callable

import numpy as np

from mmbridge.evaluation.bootstrap import Estimate

Rows = list[int]


def without_some(score: Callable[[Rows], float], count: int, parts: int = 20) -> Estimate:
    """The score of all samples, ± 1.96 standard errors by the jackknife that leaves out one part after the other.

    For scores that compare samples with each other, which a sample drawn twice would flatter.

    Args:
        score: of the numbers of some samples.
        count: N, how many there are.
        parts: into which they are dealt; N if there are fewer.
    """
    every, parts = np.arange(count), min(parts, count)
    left = np.array([score(every[every % parts != part].tolist()) for part in range(parts)])
    value = score(every.tolist())
    error = 1.96 * float(np.sqrt((parts - 1) * left.var()))
    return Estimate(value, value - error, value + error)


def drawn_anew(score: Callable[[Rows], float], count: int, draws: int = 20, seed: int = 0) -> Estimate:
    """The score of all samples, and the percentiles of those of as many drawn with replacement, few times."""
    random = np.random.default_rng(seed)
    found = [score(random.integers(count, size=count).tolist()) for _ in range(draws)]
    low, high = np.percentile(found, [2.5, 97.5])
    return Estimate(score([*range(count)]), float(low), float(high))
