"""Questions: the stated answer is what an independent reading of the question finds in the scene."""

import re
from collections import Counter

import numpy as np
import pytest

from mmbridge.data.world.questions import KINDS, questions
from mmbridge.data.world.scene import Object, Scene, compose, sample_scene
from mmbridge.data.world.vocabulary import COLOURS, NUMBERS, PLACES, SHAPES


def _named(scene: Scene, words: str) -> list[Object]:
    """Objects that fit a phrase such as ``red star``, ``crosses``, ``object at the top left``."""
    found = []
    place = next((p for p in sorted(PLACES, key=len, reverse=True) if f"at the {p}" in words), None)
    for thing in scene.objects:
        shape = next((s for s in SHAPES if re.search(rf"\b{s}(es|s)?\b", words)), thing.shape)
        colour = next((c for c in COLOURS if re.search(rf"\b{c}\b", words)), thing.colour)
        size = next((z for z in ("small", "large") if re.search(rf"\b{z}\b", words)), thing.size)
        at = PLACES[thing.place] if place is None else place
        if (shape, colour, size, at) == (thing.shape, thing.colour, thing.size, PLACES[thing.place]):
            found.append(thing)
    return found


def _oracle(scene: Scene, question: str, kind: str) -> str:
    """The answer, worked out from the words of the question alone."""
    words = question.rstrip("?.")
    if kind in ("existence", "pope"):
        found = bool(_named(scene, re.sub(r" in the image$", "", words)))
        return "no" if found == ("is it true that there is no" in words) else "yes"
    if kind == "count":
        return NUMBERS[len(_named(scene, words))]
    if "background" in words or "behind" in words:
        return scene.background
    if kind == "relation":
        first, second = re.findall(rf"(?:{'|'.join(COLOURS)}) (?:{'|'.join(SHAPES)})", words)
        a, b = _named(scene, first)[0], _named(scene, second)[0]
        across = "left" if a.column < b.column else "right"
        down = "above" if a.row < b.row else "below"
        if "left or right" in words:
            return across
        if "above or below" in words:
            return down
        truths = {
            "to the left of": a.column < b.column,
            " below the": a.row > b.row,
            "larger than": a.size == "large" and b.size == "small",
            "same size": a.size == b.size,
        }
        return "yes" if next(truth for phrase, truth in truths.items() if phrase in words) else "no"
    words = words.replace("small or large", "").replace("plain, striped or dotted", "").strip()
    (thing,) = _named(scene, words)
    return PLACES[thing.place] if kind == "position" else str(getattr(thing, kind))


def test_every_answer_is_what_the_scene_shows() -> None:
    for index in range(600):
        scene = sample_scene("combinations", 1, index)
        for asked in questions(scene, np.random.default_rng(index)):
            assert asked.answers[0] == _oracle(scene, asked.question, asked.kind), (scene, asked)


def test_a_record_has_the_same_number_of_questions_whatever_its_scene() -> None:
    lengths = {len(questions(sample_scene("test", 0, i), np.random.default_rng(i))) for i in range(200)}
    assert lengths == {len(KINDS) + 2}


@pytest.mark.parametrize("kind", ["existence", "pope"])
def test_yes_and_no_are_equally_likely(kind: str) -> None:
    random = np.random.default_rng(0)
    said: Counter[str] = Counter()
    for _ in range(1500):
        said.update(q.answers[0] for q in questions(compose(random), random) if q.kind == kind)
    share = said["yes"] / said.total()
    assert abs(share - 0.5) < 4 * 0.5 / said.total() ** 0.5


def test_no_value_dominates_the_open_kinds() -> None:
    random = np.random.default_rng(1)
    said: dict[str, Counter[str]] = {}
    for _ in range(1500):
        for asked in questions(compose(random), random):
            said.setdefault(asked.kind, Counter())[asked.answers[0]] += 1
    for kind, most in {"colour": 0.2, "shape": 0.2, "position": 0.2, "size": 0.6, "texture": 0.6}.items():
        assert max(said[kind].values()) / said[kind].total() < most
