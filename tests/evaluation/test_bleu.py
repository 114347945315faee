"""Corpus BLEU against sacrebleu and pycocoevalcap, on random captions with one to four references."""

import random

import pytest
from pycocoevalcap.bleu.bleu_scorer import BleuScorer
from sacrebleu.metrics import BLEU

from mmbridge.evaluation.bleu import bleu


def corpus(seed: int, count: int) -> tuple[list[list[str]], list[list[list[str]]]]:
    """Candidates that are damaged references, and the references."""
    draw = random.Random(seed)
    vocabulary = [
        "a",
        "the",
        "red",
        "blue",
        "small",
        "large",
        "circle",
        "star",
        "is",
        "at",
        "on",
        "top",
        "left",
        "of",
        "there",
        "black",
    ]
    candidates, references = [], []
    for _ in range(count):
        right = [[draw.choice(vocabulary) for _ in range(draw.randint(3, 14))] for _ in range(draw.randint(1, 4))]
        said = [word if draw.random() < 0.8 else draw.choice(vocabulary) for word in draw.choice(right)]
        candidates.append(said[: draw.randint(1, len(said) + 3)])
        references.append(right)
    return candidates, references


def joined(texts: list[list[str]]) -> list[str]:
    return [" ".join(text) for text in texts]


@pytest.mark.parametrize("seed", range(5))
def test_equals_sacrebleu(seed: int) -> None:
    candidates, references = corpus(seed, 60)
    most = max(map(len, references))
    streams = [[" ".join(texts[i]) if i < len(texts) else None for texts in references] for i in range(most)]
    ours = bleu(candidates, references)
    for order in range(1, 5):
        judge = BLEU(tokenize="none", smooth_method="none", max_ngram_order=order, force=True)
        theirs = judge.corpus_score(joined(candidates), streams).score / 100
        assert ours[f"bleu_{order}"].value == pytest.approx(theirs, abs=1e-9)


@pytest.mark.parametrize("seed", range(5))
def test_equals_pycocoevalcap(seed: int) -> None:
    candidates, references = corpus(seed, 60)
    judge = BleuScorer(n=4)
    for said, right in zip(joined(candidates), references, strict=True):
        judge += (said, joined(right))
    theirs, _ = judge.compute_score(option="closest")
    ours = bleu(candidates, references)
    assert [ours[f"bleu_{order}"].value for order in range(1, 5)] == pytest.approx(theirs, abs=1e-6)


def test_the_truth_scores_one_and_nothing_right_scores_zero() -> None:
    said = ["a", "red", "circle", "there"]
    assert bleu([said], [[said]])["bleu_4"].value == pytest.approx(1)
    assert bleu([["x", "y", "z", "w"]], [[said]])["bleu_1"].value == 0
    assert bleu([[]], [[said]])["bleu_1"].value == 0


def test_interval_surrounds_the_score() -> None:
    found = bleu(*corpus(0, 60))["bleu_2"]
    assert found.low < found.value < found.high
