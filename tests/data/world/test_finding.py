"""Instructions to find things: what they name is there, and nothing else is."""

import numpy as np

from mmbridge.data.world import finding
from mmbridge.data.world.language import at, parse_facts
from mmbridge.data.world.scene import Object, Scene, compose
from mmbridge.data.world.vocabulary import COLOURS, PLACES

SCENE = Scene(
    (
        Object("circle", "red", "small", "striped", PLACES.index("top left")),
        Object("cross", "red", "large", "plain", PLACES.index("centre")),
        Object("star", "blue", "large", "dotted", PLACES.index("bottom left")),
    ),
    "grey",
)


def test_what_it_lists_is_just_what_has_the_colour() -> None:
    told = {finding.of_colour(SCENE, np.random.default_rng(seed)) for seed in range(200)}
    assert ("which objects are red?", "a small striped red circle and a large red cross.") in told
    assert ("which objects are blue?", "a large dotted blue star.") in told
    assert {answer for question, answer in told if "red" not in question and "blue" not in question} == {"none."}
    assert {question.split()[-1].rstrip("?") for question, _ in told} == set(COLOURS)


def test_sides_and_comparisons_follow_the_grid() -> None:
    beside = {finding.beside(SCENE, np.random.default_rng(seed)) for seed in range(200)}
    assert ("what is right of the blue star?", "a large red cross.") in beside
    assert ("what is above the blue star?", "a small striped red circle and a large red cross.") in beside
    assert ("what is below the blue star?", "nothing.") in beside
    compared = {finding.compare(SCENE, np.random.default_rng(seed)) for seed in range(200)}
    assert (
        "compare the blue star and the red circle.",
        "the blue star is larger, the red circle is above.",
    ) in compared
    assert (
        "compare the red cross and the blue star.",
        "both are large, the red cross is above, the blue star is on the left.",
    ) in compared


def test_every_object_it_names_is_in_the_scene_and_what_it_denies_is_not() -> None:
    for seed in range(600):
        random = np.random.default_rng(seed)
        scene = compose(random, novel=None)
        names = {thing.name for thing in scene.objects}
        question, answer = finding.find(scene, random)
        if answer == "there is none.":
            assert question.removeprefix("tell me about the ").removesuffix(".") not in names
        elif answer.startswith("no, there is no "):
            assert answer.removeprefix("no, there is no ").removesuffix(".") not in names
        else:
            assert parse_facts(answer) <= scene.facts, (question, answer)


def test_an_empty_place_holds_nothing() -> None:
    found = {finding.in_place(SCENE, np.random.default_rng(seed)) for seed in range(200)}
    assert (f"what is {at(PLACES.index('right'))}?", "nothing.") in found
    assert (f"what is {at(PLACES.index('centre'))}?", "a large red cross.") in found
