"""Which of several ways to do the same takes less time, and by how much: paired, in one process.

The variants take turns, and each round begins one further on, so that neither drift nor what ran before favours one. A
ratio compares two variants within a round; the figure is the median over the rounds, between the 10 % and 90 % points.
The baseline takes part twice: how far that row is from 1 is what cannot be told from noise. The clock is the process's
CPU time, over all its threads, which other processes on the machine hardly touch.
"""

import time
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

AGAIN = ", again"
"""What is put behind the baseline's name for its second turn."""


def paired(
    variants: Mapping[str, Callable[[], object]], rounds: int, clock: Callable[[], float] = time.process_time
) -> dict[str, Any]:
    """Runs every variant once to warm up and then once a round.

    Args:
        variants: what to run, by name; the first is the baseline.
        rounds: how many, at least one.
        clock: seconds.

    Returns:
        By name, the baseline's second turn included: ``seconds``, the median, and ``speed-up`` over the baseline as
        ``[median, 10 %, 90 %]``.
    """
    baseline = next(iter(variants))
    work = {**variants, baseline + AGAIN: variants[baseline]}
    names = list(work)
    seconds: dict[str, list[float]] = {name: [] for name in names}
    for each in variants.values():
        each()
    for turn in range(rounds):
        first = turn % len(names)
        for name in names[first:] + names[:first]:
            began = clock()
            work[name]()
            seconds[name].append(clock() - began)
    return {
        name: {
            "seconds": float(np.median(taken)),
            "speed-up": np.quantile(np.divide(seconds[baseline], taken), [0.5, 0.1, 0.9]).tolist(),
        }
        for name, taken in seconds.items()
    }


def lines(figures: Mapping[str, Any]) -> list[str]:
    """A row a variant, for people."""
    rows = []
    for name, found in figures.items():
        ratio, low, high = found["speed-up"]
        rows.append(f"{name:<40}{found['seconds']:>9.3f} s   × {ratio:.2f} [{low:.2f}, {high:.2f}]")
    return rows
