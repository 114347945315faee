"""What a bridge that sees nothing scores, computed from the very truths it is scored against.

``constant`` is the best that one fixed answer can do; ``shuffled`` is what the true answer of a random other sample
scores on average, in closed form: about what a perfect bridge shown the wrong media would get. A control is at chance
when its interval contains chance.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import accumulate
from typing import Any

import numpy as np

from mmbridge.evaluation import bootstrap
from mmbridge.evaluation.bootstrap import Estimate
from mmbridge.evaluation.facts import Facts, as_facts, f1
from mmbridge.evaluation.vqa import normalise, vqa_accuracy

_CANDIDATES = 10
"""Frequent answers among which the best constant one is sought: with soft 3-of-10 scores it need not be the first."""


def answer_chance(truths: Sequence[Mapping[str, Any]]) -> dict[str, Estimate]:
    """Chance levels of VQA accuracy for questions with ``answers`` and, if known, a ``kind``.

    ``constant``: the majority answer of each kind; ``shuffled``: the answer to a random other question of its kind (a
    question alone in its kind scores 0).
    """
    constant, shuffled = np.zeros(len(truths)), np.zeros(len(truths))
    by_kind: dict[str | None, list[int]] = {}
    for index, truth in enumerate(truths):
        by_kind.setdefault(truth.get("kind"), []).append(index)
    for indices in by_kind.values():
        answers = [truths[index]["answers"] for index in indices]
        constant[indices] = _majority(answers)
        shuffled[indices] = _another(answers)
    return {"constant": bootstrap.mean(constant), "shuffled": bootstrap.mean(shuffled)}


def _majority(answers: Sequence[Sequence[str]]) -> list[float]:
    """Accuracy, question by question, of the one answer that scores best over all of them."""
    votes = Counter(answer for given in answers for answer in {normalise(text) for text in given})
    scores = ([vqa_accuracy(answer, given) for given in answers] for answer, _ in votes.most_common(_CANDIDATES))
    return max(scores, key=sum)


def _another(answers: Sequence[Sequence[str]]) -> list[float]:
    """Expected accuracy, question by question, of another question's preferred answer."""
    preferred = [Counter(map(normalise, given)).most_common(1)[0][0] for given in answers]
    votes, others = Counter(preferred), max(1, len(answers) - 1)
    return [
        sum(
            (votes[answer] - (answer == own)) * vqa_accuracy(answer, given)
            for answer in {normalise(text) for text in given}
        )
        / others
        for own, given in zip(preferred, answers, strict=True)
    ]


def fact_chance(truths: Sequence[Mapping[str, Any]]) -> dict[str, Estimate]:
    """Chance levels of fact-F1 for captions whose truth has ``facts``.

    ``constant``: the one set of facts with the highest F1 on all samples, which no fixed caption can beat;
    ``shuffled``: the facts of a random other sample.
    """
    facts = [as_facts(truth["facts"]) for truth in truths]
    frequency = Counter(fact for held in facts for fact in held)
    sizes = np.array([len(held) for held in facts], dtype=np.float64)
    best = _best_constant(frequency, len(facts), int(sizes.sum()))
    hits = np.array([len(held & best) for held in facts])
    constant = np.stack([hits, np.full(len(facts), len(best)), sizes], axis=1)
    others = max(1, len(facts) - 1)
    hits = np.array([sum(frequency[fact] - 1 for fact in held) / others for held in facts])
    shuffled = np.stack([hits, (sizes.sum() - sizes) / others, sizes], axis=1)
    return {"constant": bootstrap.estimate(constant, f1), "shuffled": bootstrap.estimate(shuffled, f1)}


def _best_constant(frequency: Counter[tuple[str, ...]], samples: int, true: int) -> Facts:
    """The set with the highest micro F1: a prefix of the facts by frequency, for of a given size these hit most."""
    ranked = sorted(frequency, key=lambda fact: (-frequency[fact], fact))
    hits = accumulate(frequency[fact] for fact in ranked)
    scores = [2 * hit / (size * samples + true) for size, hit in enumerate(hits, start=1)]
    return frozenset(ranked[: int(np.argmax(scores)) + 1])
