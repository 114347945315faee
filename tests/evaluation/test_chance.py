"""Chance levels against brute force over every constant and every other sample."""

from itertools import combinations
from typing import Any

import numpy as np
import pytest

from mmbridge.evaluation.chance import answer_chance, fact_chance
from mmbridge.evaluation.vqa import vqa_accuracy

FACTS = [("red circle",), ("red circle", "large"), ("blue star",), ("blue star", "small"), ("background", "black")]


def questions() -> list[dict[str, Any]]:
    random = np.random.default_rng(0)
    colours, numbers = ["red", "blue", "green"], [["two", "2"], ["one", "1"]]
    asked: list[dict[str, Any]] = [
        {"kind": "colour", "answers": [str(random.choice(colours, p=[0.5, 0.3, 0.2]))]} for _ in range(30)
    ]
    return asked + [{"kind": "count", "answers": numbers[random.integers(2)]} for _ in range(20)]


def test_constant_is_the_majority_of_each_kind() -> None:
    asked = questions()
    best = 0.0
    for kind in ("colour", "count"):
        held: list[list[str]] = [q["answers"] for q in asked if q["kind"] == kind]
        best += max(sum(vqa_accuracy(answer, given) for given in held) for given_all in held for answer in given_all)
    assert answer_chance(asked)["constant"].value == pytest.approx(best / len(asked))


def test_shuffled_is_the_mean_over_every_other_question_of_the_kind() -> None:
    asked = questions()
    total = 0.0
    for i, one in enumerate(asked):
        others = [q for j, q in enumerate(asked) if j != i and q["kind"] == one["kind"]]
        total += sum(vqa_accuracy(q["answers"][0], one["answers"]) for q in others) / len(others)
    assert answer_chance(asked)["shuffled"].value == pytest.approx(total / len(asked))


def test_a_panel_of_ten_is_scored_by_its_rule() -> None:
    panel = ["red"] * 3 + ["blue"] * 7
    found = answer_chance([{"answers": panel}, {"answers": ["red"] * 10}])
    assert found["constant"].value == pytest.approx((0.9 + 1) / 2)
    assert found["shuffled"].value == pytest.approx((0.9 + 0) / 2)


def scenes() -> list[dict[str, Any]]:
    random = np.random.default_rng(1)
    odds = [0.8, 0.5, 0.4, 0.2, 0.6]
    held = [[f for f, p in zip(FACTS, odds, strict=True) if random.random() < p] for _ in range(25)]
    return [{"facts": [list(fact) for fact in facts]} for facts in held]


def micro_f1(said: list[set[tuple[str, ...]]], true: list[set[tuple[str, ...]]]) -> float:
    hits = sum(len(a & b) for a, b in zip(said, true, strict=True))
    return 2 * hits / (sum(map(len, said)) + sum(map(len, true)))


def test_constant_facts_are_the_best_of_all_sets() -> None:
    true = [{tuple(fact) for fact in scene["facts"]} for scene in scenes()]
    every = (set(chosen) for size in range(1, 6) for chosen in combinations(FACTS, size))
    best = max(micro_f1([chosen] * len(true), true) for chosen in every)
    assert fact_chance(scenes())["constant"].value == pytest.approx(best)


def test_shuffled_facts_are_those_of_every_other_sample() -> None:
    true = [{tuple(fact) for fact in scene["facts"]} for scene in scenes()]
    pairs = [(a, b) for i, a in enumerate(true) for j, b in enumerate(true) if i != j]
    expected = micro_f1([a for a, _ in pairs], [b for _, b in pairs])
    assert fact_chance(scenes())["shuffled"].value == pytest.approx(expected)
