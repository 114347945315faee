"""Fact-F1: which facts a caption states, against which are true.

A fact is a tuple of words: ``("red circle",)`` says that there is one, ``("red circle", "large")`` says something about
it. Counts are summed over samples before precision, recall and F1 are taken (micro-averaged).
"""

from collections.abc import Callable, Collection, Iterable, Sequence

import numpy as np

from mmbridge.evaluation.bootstrap import Estimate, Floats, divide, estimate, ratio

Fact = tuple[str, ...]
Facts = frozenset[Fact]
Parser = Callable[[str], Facts]
"""From a text to the facts it states."""


def as_facts(raw: Iterable[Sequence[str]]) -> Facts:
    """Facts as JSON holds them (lists of lists) to facts."""
    return frozenset(tuple(fact) for fact in raw)


def objects(facts: Facts) -> frozenset[str]:
    """The objects that facts say are there: a fact of one part names an object."""
    return frozenset(fact[0] for fact in facts if len(fact) == 1)


def fact_counts(predicted: Sequence[Collection[Fact]], true: Sequence[Collection[Fact]]) -> Floats:
    """(N, 3): facts of each sample that are predicted and true, predicted, true."""
    counts = [(len(set(p) & set(t)), len(set(p)), len(set(t))) for p, t in zip(predicted, true, strict=True)]
    return np.array(counts, dtype=np.float64).reshape(len(counts), 3)


def f1(sums: Floats) -> Floats:
    """F1 of counts (..., 3) as ``fact_counts`` gives them: hits over the mean of predicted and true."""
    return divide(2 * sums[..., 0], sums[..., 1] + sums[..., 2])


def fact_scores(counts: Floats) -> dict[str, Estimate]:
    """Micro precision, recall and F1 of counts (N, 3), with intervals over samples."""
    return {
        "fact_f1": estimate(counts, f1),
        "fact_precision": estimate(counts, ratio(0, 1)),
        "fact_recall": estimate(counts, ratio(0, 2)),
    }
