"""Intervals for scores of stored samples that are not means: samples are left out, part after part.

Bradley Efron, Robert Tibshirani: An Introduction to the Bootstrap, 1993, chapter 11 (the jackknife)
"""

import math
from collections.abc import Callable, Sequence

import numpy as np

from mmbridge.evaluation.bootstrap import Estimate

Rows = list[int]


def without_some(score: Callable[[Rows], float], count: int, parts: int = 20, highest: float = math.inf) -> Estimate:
    """The score of all samples, ± 1.96 standard errors by the jackknife that leaves out one part after the other.

    For scores that compare samples with each other or clouds of them, which a sample drawn twice would bias.

    Args:
        score: of the numbers of some samples.
        count: N, how many there are.
        parts: into which they are dealt; N if there are fewer.
        highest: the score of what is wholly alike; no interval goes beyond it.
    """
    (found,) = several_without_some(lambda rows: [score(rows)], count, parts, highest)
    return found


def several_without_some(
    scores: Callable[[Rows], Sequence[float]], count: int, parts: int = 20, highest: float = math.inf
) -> list[Estimate]:
    """The same of several scores that are found together."""
    every, parts = np.arange(count), min(parts, count)
    left = np.array([scores(every[every % parts != part].tolist()) for part in range(parts)])
    errors = 1.96 * np.sqrt((parts - 1) * left.var(axis=0))
    return [
        Estimate(value, value - error, min(value + error, max(value, highest)))
        for value, error in zip(map(float, scores(every.tolist())), errors.tolist(), strict=True)
    ]
