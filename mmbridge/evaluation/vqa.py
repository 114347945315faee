"""The VQA task's scores: exact match and VQAv2 accuracy, overall and for every kind of question.

Antol et al., "VQA: Visual Question Answering", arXiv 1505.00468, section 3 (the 3-of-10 rule), and the answer
processing of the released evaluation (GT-Vision-Lab/VQA, vqaEval.py), on which published VQAv2 figures rest.

Differs from the released evaluation: reference answers are processed like predictions (there, only their punctuation,
and only where annotators disagree; its data is in processed form, other data is not), and fewer than ten answers are
no panel of annotators but answers that are equally right: any match scores 1.
"""

from collections.abc import Callable, Sequence
from functools import lru_cache
from re import compile as pattern

from mmbridge.evaluation import bootstrap
from mmbridge.evaluation.bootstrap import Estimate
from mmbridge.evaluation.report import Row
from mmbridge.evaluation.text import plain

PANEL = 10
"""Annotators of a question in VQAv2; three of them must agree with an answer for it to be right."""

_NUMBERS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")
_DIGITS = {word: str(number) for number, word in enumerate(_NUMBERS)} | {"none": "0"}
_ARTICLES = frozenset(("a", "an", "the"))
_PUNCTUATION = ';/[]"{}()=+\\_-><@`,?!'
_NUMBER_WITH_COMMA = pattern(r"\d,\d")
_PERIOD = pattern(r"\.(?!\d)")

_CONTRACTIONS = (
    "ain't aren't can't could've couldn't couldn't've didn't doesn't don't hadn't hadn't've hasn't haven't he'd "
    "he'd've he's how'd how'll how's isn't it'd it'd've it'll ma'am might've mightn't mightn't've must've mustn't "
    "needn't not've o'clock oughtn't 'ow's'at shan't she'd've should've shouldn't shouldn't've somebody'd've "
    "somebody'll somebody's someone'd someone'd've someone'll someone's something'd something'd've something'll "
    "that's there'd there'd've there're there's they'd they'd've they'll they're they've 'twas wasn't we'd've we've "
    "weren't what'll what're what's what've when's where'd where's where've who'd who'd've who'll who's who've "
    "why'll why're why's won't would've wouldn't wouldn't've y'all y'all'd've y'all'll you'd you'd've you'll you're "
    "you've"
)


def _without_one_apostrophe() -> dict[str, str]:
    """Each contraction by the ways to write it with one apostrophe too few: what the released table holds."""
    table = {}
    for full in _CONTRACTIONS.split():
        parts = full.split("'")
        for i in range(1, len(parts)):
            table["'".join(parts[:i]) + "'".join(parts[i:])] = full
    return table | {"somebody'd": "somebodyd"}  # a slip in the released table, kept for equal figures


_FULL_FORM = _without_one_apostrophe()


@lru_cache(maxsize=65536)
def normalise(answer: str) -> str:
    """An answer in processed form: punctuation, case, number words, articles and contractions made alike.

    A mark becomes a space between words and vanishes beside a space (all vanish where a comma splits a number);
    a full stop stays before a digit only; ``none`` and ``zero`` to ``ten`` become digits; ``a an the`` go.
    """
    raw = answer.replace("\n", " ").replace("\t", " ").strip()
    text, grouped = raw, _NUMBER_WITH_COMMA.search(raw) is not None
    for mark in _PUNCTUATION:
        text = text.replace(mark, "" if grouped or f"{mark} " in raw or f" {mark}" in raw else " ")
    found = (_DIGITS.get(word, word) for word in _PERIOD.sub("", text).lower().split())
    return " ".join(_FULL_FORM.get(word, word) for word in found if word not in _ARTICLES)


def vqa_accuracy(prediction: str, answers: Sequence[str]) -> float:
    """VQAv2 accuracy of one answer, in [0, 1].

    With ten answers or more: the mean, over leaving each annotator out, of min(1, matches / 3). With fewer: 1 when
    any matches. Both sides are compared in processed form.
    """
    said = normalise(prediction)
    matches = sum(normalise(answer) == said for answer in answers)
    if len(answers) < PANEL:
        return float(matches > 0)
    left_out_matches = matches * min(1, (matches - 1) / 3)
    left_out_differs = (len(answers) - matches) * min(1, matches / 3)
    return (left_out_matches + left_out_differs) / len(answers)


def exact(prediction: str, answers: Sequence[str]) -> float:
    """1 when the prediction is one of the answers but for case and final punctuation."""
    return float(plain(prediction) in map(plain, answers))


def vqa_scores(rows: Sequence[Row]) -> dict[str, Estimate]:
    """``accuracy`` (VQAv2) and ``exact`` over all questions, and as ``NAME/KIND`` for every kind that is known."""
    measures: dict[str, Callable[[str, Sequence[str]], float]] = {"accuracy": vqa_accuracy, "exact": exact}
    kinds = sorted({row.kind for row in rows if row.kind is not None})
    scores = {}
    for name, measure in measures.items():
        values = [measure(row.prediction, row.truth["answers"]) for row in rows]
        scores[name] = bootstrap.mean(values)
        for kind in kinds:
            held = [value for value, row in zip(values, rows, strict=True) if row.kind == kind]
            scores[f"{name}/{kind}"] = bootstrap.mean(held)
    return scores
