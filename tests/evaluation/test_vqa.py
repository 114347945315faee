"""VQAv2 accuracy against figures that the released evaluation gave on the same answers (vqa_released.json)."""

import json
from pathlib import Path
from typing import Any

import pytest

from mmbridge.evaluation.report import Row
from mmbridge.evaluation.vqa import exact, normalise, vqa_accuracy, vqa_scores

RELEASED: dict[str, Any] = json.loads(Path(__file__).with_name("vqa_released.json").read_text(encoding="utf-8"))


def test_answers_are_processed_as_the_released_evaluation_does() -> None:
    assert len(RELEASED["normalised"]) > 300
    for raw, processed in RELEASED["normalised"]:
        assert normalise(raw) == processed, raw


def test_accuracy_with_ten_annotators_is_the_released_evaluations() -> None:
    assert len({figure for *_, figure in RELEASED["accuracy"]}) > 3
    for prediction, answers, figure in RELEASED["accuracy"]:
        assert vqa_accuracy(prediction, answers) == pytest.approx(figure), (prediction, answers)


@pytest.mark.parametrize(
    ("raw", "processed"),
    [
        ("The Red.", "red"),
        ("two", "2"),
        ("none", "0"),
        ("dont", "don't"),
        ("100,978", "100978"),
        ("2:50 pm", "2:50 pm"),
        ("3.5", "3.5"),
        ("t-shirt", "t shirt"),
        ("girl's", "girl's"),
    ],
)
def test_answers_are_processed_as_the_page_about_it_says(raw: str, processed: str) -> None:
    assert normalise(raw) == processed


def test_three_of_ten_is_nearly_right_and_four_is_wholly() -> None:
    others = [f"other {i}" for i in range(7)]
    assert vqa_accuracy("red", ["red"] * 3 + others) == pytest.approx(0.9)  # 7 × 1 and 3 × 2/3, left out in turn
    assert vqa_accuracy("red", ["red"] * 4 + others[:6]) == pytest.approx(1)


def test_one_reference_is_right_or_wrong() -> None:
    assert vqa_accuracy("A two.", ["2"]) == 1
    assert vqa_accuracy("three", ["2"]) == 0


def test_a_few_answers_are_equally_right() -> None:
    assert vqa_accuracy("left side", ["left", "left side"]) == 1


def test_exact_ignores_case_and_final_punctuation_only() -> None:
    assert exact("Top left.", ["top left"]) == 1
    assert exact("the top left", ["top left"]) == 0
    assert exact("2", ["two"]) == 0


def test_scores_are_broken_down_by_kind() -> None:
    rows = [
        Row("0", "red", {"answers": ["red"]}, "colour"),
        Row("1", "the blue", {"answers": ["blue"]}, "colour"),
        Row("2", "3", {"answers": ["two", "2"]}, "count"),
    ]
    scores = vqa_scores(rows)
    found = {name: score.value for name, score in scores.items()}
    assert found == pytest.approx(
        {
            "accuracy": 2 / 3,
            "accuracy/colour": 1,
            "accuracy/count": 0,
            "exact": 1 / 3,
            "exact/colour": 1 / 2,
            "exact/count": 0,
        }
    )
    assert scores["accuracy"].low <= 2 / 3 <= scores["accuracy"].high
