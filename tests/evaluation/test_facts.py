"""Fact-F1 against scikit-learn's micro-averaged scores."""

import numpy as np
import pytest
from sklearn.metrics import precision_recall_fscore_support

from mmbridge.evaluation.facts import as_facts, fact_counts, fact_scores, objects

FACTS = [("red circle",), ("red circle", "large"), ("blue star",), ("blue star", "small"), ("background", "black")]


def test_equals_scikit_learn_on_indicator_matrices() -> None:
    random = np.random.default_rng(0)
    true = random.random((80, len(FACTS))) < 0.5
    said = true ^ (random.random(true.shape) < 0.2)
    precision, recall, f1, _ = precision_recall_fscore_support(true, said, average="micro", zero_division=0)
    sets = [[frozenset(FACTS[i] for i in np.flatnonzero(row)) for row in matrix] for matrix in (said, true)]
    ours = fact_scores(fact_counts(sets[0], sets[1]))
    assert ours["fact_f1"].value == pytest.approx(f1)
    assert ours["fact_precision"].value == pytest.approx(precision)
    assert ours["fact_recall"].value == pytest.approx(recall)
    assert ours["fact_f1"].low < f1 < ours["fact_f1"].high


def test_counts_are_hits_predicted_true() -> None:
    assert fact_counts([FACTS[:3]], [FACTS[1:]]).tolist() == [[2, 3, 4]]


def test_saying_nothing_scores_zero() -> None:
    scores = fact_scores(fact_counts([[]], [FACTS]))
    assert [score.value for score in scores.values()] == [0, 0, 0]


def test_json_lists_become_facts_and_one_word_facts_are_objects() -> None:
    facts = as_facts([["red circle"], ["red circle", "large"], ["background", "black"]])
    assert facts == {("red circle",), ("red circle", "large"), ("background", "black")}
    assert objects(facts) == {"red circle"}
