"""The POPE task's scores: yes-or-no questions about objects that are, or are not, there.

Li et al., "Evaluating Object Hallucination in Large Vision-Language Models", arXiv 2305.10355, section 4: accuracy,
precision, recall and F1 with yes as the positive class, and the rate of yes.

Differs from the released evaluation: that reads every text without "no" or "not" as yes. Here an answer that says
neither yes nor no is counted as ``unparsable`` and never guessed: it is wrong, and a missed yes where yes was right.
"""

import re
from collections.abc import Sequence
from typing import Literal

import numpy as np

from mmbridge.evaluation.bootstrap import Estimate, Floats, Score, divide, estimate, ratio
from mmbridge.evaluation.report import Row

_SENTENCE_END = re.compile(r"[.!?\n]")
_WORDS = re.compile(r"[^\W\d_]+")


def yes_or_no(answer: str) -> Literal["yes", "no"] | None:
    """What an answer says: its first word if that is yes or no, else the one of them that its first sentence holds.

    ``None`` when it holds neither, or both and begins with neither.
    """
    sentences = (_WORDS.findall(sentence) for sentence in _SENTENCE_END.split(answer.lower()))
    first = next((sentence for sentence in sentences if sentence), [])
    held = set(first[:1]) & {"yes", "no"} or set(first) & {"yes", "no"}
    if len(held) != 1:
        return None
    return "yes" if "yes" in held else "no"


# an item's statistics, and the columns of their sums
_RIGHT, _TRUE_YES, _SAID_YES, _IS_YES, _UNPARSABLE, _ONE = range(6)


def pope_statistics(said: str | None, true: str | None) -> list[float]:
    """What one answer adds: right, yes and right, said yes, is yes, unparsable, one."""
    return [said is not None and said == true, said == true == "yes", said == "yes", true == "yes", said is None, 1]


def _f1(sums: Floats) -> Floats:
    return divide(2 * sums[..., _TRUE_YES], sums[..., _SAID_YES] + sums[..., _IS_YES])


_SCORES: dict[str, Score] = {
    "f1": _f1,
    "accuracy": ratio(_RIGHT, _ONE),
    "precision": ratio(_TRUE_YES, _SAID_YES),
    "recall": ratio(_TRUE_YES, _IS_YES),
    "yes_rate": ratio(_SAID_YES, _ONE),
    "unparsable": ratio(_UNPARSABLE, _ONE),
}


def pope_scores(rows: Sequence[Row]) -> dict[str, Estimate]:
    """F1, accuracy, precision, recall, rate of yes and rate of unparsable answers, each over all questions.

    Where questions come in several kinds (POPE's random, popular and adversarial), F1 and accuracy of each as well.
    """
    counts = [pope_statistics(yes_or_no(row.prediction), yes_or_no(row.truth["answers"][0])) for row in rows]
    statistics = np.array(counts, dtype=np.float64)
    scores = {name: estimate(statistics, score) for name, score in _SCORES.items()}
    kinds = sorted({row.kind for row in rows if row.kind is not None})
    for kind in kinds if len(kinds) > 1 else ():
        held = statistics[[row.kind == kind for row in rows]]
        scores |= {f"{name}/{kind}": estimate(held, _SCORES[name]) for name in ("f1", "accuracy")}
    return scores
