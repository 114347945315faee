"""The caption task's scores together, and fact-F1 on the embedded world's own captions."""

import pytest

from mmbridge.data.world.language import parse_facts, references
from mmbridge.data.world.scene import sample_scene
from mmbridge.evaluation.captions import caption_scores
from mmbridge.evaluation.report import Row

SCENES = [sample_scene("test", 0, index) for index in range(40)]


def row(index: int, prediction: str) -> Row:
    scene = SCENES[index]
    truth = {"references": references(scene), "facts": [list(fact) for fact in scene.facts]}
    return Row(str(index), prediction, truth)


def test_a_perfect_captioner_is_perfect_in_every_score() -> None:
    found = caption_scores([row(i, references(scene)[0].upper()) for i, scene in enumerate(SCENES)], parse_facts)
    assert (found["fact_f1"].value, found["exact"].value) == (1, 1)
    assert found["bleu_4"].value == pytest.approx(1)
    assert (found["chair_i"].value, found["chair_s"].value) == (0, 0)
    assert found["cider"].value > 2  # the other references say it differently


def test_another_scenes_caption_is_not() -> None:
    rows = [row(i, references(SCENES[i - 1])[0]) for i in range(len(SCENES))]
    found = caption_scores(rows, parse_facts)
    assert found["fact_f1"].value < 0.3
    assert found["exact"].value == 0
    assert found["chair_s"].value > 0.8


def test_one_wrong_colour_costs_that_objects_facts_alone() -> None:
    truth = {
        "caption": "a small red circle at the top, on a black background.",
        "facts": [["red circle"], ["red circle", "small"], ["red circle", "top"], ["background", "black"]],
    }
    said = "a small blue circle at the top, on a black background."
    found = caption_scores([Row("0", said, truth)], parse_facts)
    assert found["fact_f1"].value == pytest.approx(1 / 4)
    assert found["chair_i"].value == 1


def test_without_facts_there_is_no_fact_score() -> None:
    found = caption_scores([Row("0", "A dog.", {"caption": "a dog"}), Row("1", "x", {"caption": "a cat"})], parse_facts)
    assert set(found) == {"exact", "cider", "bleu_1", "bleu_2", "bleu_3", "bleu_4"}
    assert found["exact"].value == 0.5
