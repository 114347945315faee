"""CIDEr-D, with document frequencies from the references at hand.

Vedantam, Zitnick, Parikh, "CIDEr: Consensus-based Image Description Evaluation", arXiv 1411.5726, sections 3 and 4:
the mean over n = 1…4 of the cosine between TF-IDF vectors of n-grams, candidate clipped to the reference, times a
Gaussian penalty on the difference in length (σ = 6), times 10.

Differs from the paper: the lengths compared are counts of bigrams, as in the authors' released code, by which every
published figure was made. A corpus of one image scores 0, for its document frequencies say nothing.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from math import exp, log, sqrt

import numpy as np

from mmbridge.evaluation.bleu import ORDERS, ngrams
from mmbridge.evaluation.bootstrap import Floats

SIGMA = 6.0
Ngram = tuple[str, ...]


@dataclass(frozen=True, slots=True)
class _Vector:
    """TF-IDF weights of a text's n-grams, their norm for every order, and the text's number of bigrams."""

    weights: dict[Ngram, float]
    norms: tuple[float, ...]
    length: int


def _vector(words: Sequence[str], frequency: Counter[Ngram], images: int) -> _Vector:
    counts = ngrams(words)
    weights = {ngram: count * (log(images) - log(max(1, frequency[ngram]))) for ngram, count in counts.items()}
    squares = [0.0] * ORDERS
    for ngram, weight in weights.items():
        squares[len(ngram) - 1] += weight**2
    return _Vector(weights, tuple(map(sqrt, squares)), max(0, len(words) - 1))


def _similarity(candidate: _Vector, reference: _Vector) -> float:
    products = [0.0] * ORDERS
    for ngram, weight in candidate.weights.items():
        if held := reference.weights.get(ngram):
            products[len(ngram) - 1] += min(weight, held) * held
    norms = (a * b for a, b in zip(candidate.norms, reference.norms, strict=True))
    cosines = (product / norm for product, norm in zip(products, norms, strict=True) if norm)
    penalty = exp(-((candidate.length - reference.length) ** 2) / (2 * SIGMA**2))
    return sum(cosines) * penalty / ORDERS


def cider(candidates: Sequence[Sequence[str]], references: Sequence[Sequence[Sequence[str]]]) -> Floats:
    """CIDEr-D of every caption (N,), on the released code's scale of 0 to 10; the corpus' score is their mean.

    Args:
        candidates: captions in words.
        references: one or more references for each, in words.
    """
    frequency: Counter[Ngram] = Counter()
    for texts in references:
        frequency.update({ngram for text in texts for ngram in ngrams(text)})
    scores = []
    for candidate, texts in zip(candidates, references, strict=True):
        vector = _vector(candidate, frequency, len(references))
        alike = [_similarity(vector, _vector(text, frequency, len(references))) for text in texts]
        scores.append(10 * sum(alike) / len(alike))
    return np.array(scores)
