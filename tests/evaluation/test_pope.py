"""POPE scores against scikit-learn's; and answers that say neither yes nor no."""

import numpy as np
import pytest
from sklearn.metrics import accuracy_score, precision_recall_fscore_support

from mmbridge.evaluation.pope import pope_scores, yes_or_no
from mmbridge.evaluation.report import Row


def rows(said: list[str], true: list[str], kinds: list[str] | None = None) -> list[Row]:
    return [
        Row(str(i), text, {"answers": [right]}, kinds[i] if kinds else None)
        for i, (text, right) in enumerate(zip(said, true, strict=True))
    ]


@pytest.mark.parametrize(
    ("answer", "read"),
    [
        ("Yes", "yes"),
        ("no.", "no"),
        ("Yes, there is no doubt about it.", "yes"),
        ("No, but yes to the other one.", "no"),
        ("There is no dog in the image.", "no"),
        ("I think the answer is yes.", "yes"),
        ("\n**No**", "no"),
        ("There is a dog.", None),
        ("I do not know.", None),
        ("It may be yes or no.", None),
        ("A dog. Yes.", None),
        ("yesterday", None),
        ("", None),
    ],
)
def test_answers_are_read_and_never_guessed(answer: str, read: str | None) -> None:
    assert yes_or_no(answer) == read


def test_equals_scikit_learn_when_every_answer_is_clear() -> None:
    random = np.random.default_rng(0)
    true = random.choice(["yes", "no"], 120)
    said = np.where(random.random(120) < 0.25, random.choice(["yes", "no"], 120), true)
    precision, recall, f1, _ = precision_recall_fscore_support(true, said, pos_label="yes", average="binary")
    scores = pope_scores(rows(said.tolist(), true.tolist()))
    assert {name: score.value for name, score in scores.items()} == pytest.approx(
        {
            "f1": f1,
            "accuracy": accuracy_score(true, said),
            "precision": precision,
            "recall": recall,
            "yes_rate": np.mean(said == "yes"),
            "unparsable": 0,
        }
    )
    assert scores["f1"].low < f1 < scores["f1"].high


def test_an_unparsable_answer_is_wrong_and_a_missed_yes() -> None:
    found = pope_scores(rows(["yes", "a dog", "a cat", "no"], ["yes", "yes", "no", "no"]))
    assert {name: score.value for name, score in found.items()} == pytest.approx(
        {"f1": 2 / 3, "accuracy": 1 / 2, "precision": 1, "recall": 1 / 2, "yes_rate": 1 / 4, "unparsable": 1 / 2}
    )


def test_saying_no_to_everything_scores_zero_f1() -> None:
    found = pope_scores(rows(["no", "no"], ["yes", "no"]))
    assert (found["f1"].value, found["precision"].value, found["accuracy"].value) == (0, 0, 0.5)


def test_several_kinds_are_scored_apart_and_one_is_not() -> None:
    said, true = ["yes", "no", "yes", "yes"], ["yes", "no", "no", "no"]
    found = pope_scores(rows(said, true, ["random", "random", "adversarial", "adversarial"]))
    assert found["accuracy/random"].value == 1
    assert found["accuracy/adversarial"].value == 0
    assert not [name for name in pope_scores(rows(said, true, ["pope"] * 4)) if "/" in name]
