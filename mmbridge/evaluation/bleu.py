"""Corpus BLEU-1 to BLEU-4.

Papineni, Roukos, Ward, Zhu, "BLEU: a Method for Automatic Evaluation of Machine Translation", ACL 2002, section 2:
n-gram precision clipped by the reference that has most of the n-gram, geometric mean, brevity penalty against the
reference closest in length (the shorter of two equally close). No smoothing: no match of an order scores 0.
"""

from collections import Counter
from collections.abc import Sequence

import numpy as np

from mmbridge.evaluation.bootstrap import Estimate, Floats, Score, divide, estimate

ORDERS = 4


def ngrams(words: Sequence[str]) -> Counter[tuple[str, ...]]:
    """How often each run of one to four words occurs."""
    return Counter(tuple(words[i : i + n]) for n in range(1, ORDERS + 1) for i in range(len(words) - n + 1))


def bleu_statistics(candidate: Sequence[str], references: Sequence[Sequence[str]]) -> list[float]:
    """What one caption adds to the corpus: 4 counts of matched n-grams, 4 of n-grams, its length, the reference's."""
    most: Counter[tuple[str, ...]] = Counter()
    for reference in references:
        most |= ngrams(reference)
    found, matched = ngrams(candidate), [0] * ORDERS
    for ngram, count in found.items():
        matched[len(ngram) - 1] += min(count, most[ngram])
    length = len(candidate)
    closest = min((len(reference) for reference in references), key=lambda n: (abs(n - length), n))
    return [*matched, *(max(0, length - n) for n in range(ORDERS)), length, closest]


def _order(order: int) -> Score:
    def score(sums: Floats) -> Floats:
        precisions = divide(sums[..., :order], sums[..., ORDERS : ORDERS + order])
        with np.errstate(divide="ignore"):
            log_mean = np.log(precisions).mean(axis=-1)
        length, reference = sums[..., 2 * ORDERS], sums[..., 2 * ORDERS + 1]
        penalty = np.minimum(0, 1 - divide(reference, length))
        bleu: Floats = np.exp(log_mean + penalty)
        return bleu

    return score


def bleu(candidates: Sequence[Sequence[str]], references: Sequence[Sequence[Sequence[str]]]) -> dict[str, Estimate]:
    """``bleu_1`` … ``bleu_4`` in [0, 1] of captions in words against one or more references each."""
    statistics = np.array([bleu_statistics(c, r) for c, r in zip(candidates, references, strict=True)])
    return {f"bleu_{n}": estimate(statistics, _order(n)) for n in range(1, ORDERS + 1)}
