"""Words say exactly what a scene holds, and facts are read back out of them."""

import numpy as np

from mmbridge.data.world.language import brief, caption, describe, listing, parse_facts, references
from mmbridge.data.world.scene import Object, Scene, compose, sample_scene
from mmbridge.data.world.vocabulary import PLACES


def test_a_caption_by_hand() -> None:
    scene = Scene((Object("star", "orange", "small", "plain", 0), Object("ring", "cyan", "large", "dotted", 4)), "grey")
    assert caption(scene) == (
        "a small orange star at the top left, a large dotted cyan ring in the centre, on a grey background."
    )
    assert brief(scene) == "an orange star and a cyan ring."
    assert listing(scene) == "- small orange star, top left\n- large dotted cyan ring, centre"


def test_the_facts_of_a_caption_are_those_of_its_scene() -> None:
    for index in range(500):
        scene = sample_scene("combinations", 0, index)
        assert parse_facts(caption(scene)) == scene.facts
        assert parse_facts(references(scene)[1]) == scene.facts


def test_facts_of_wrong_or_broken_captions() -> None:
    assert parse_facts("") == frozenset()
    assert parse_facts("a red") == frozenset()
    assert parse_facts("A LARGE red star at the top, on a") == {
        ("red star",),
        ("red star", "large"),
        ("red star", "top"),
    }
    assert parse_facts("a red star at the top left") >= {("red star", "top left")}
    assert ("red star", "top") not in parse_facts("a red star at the top left")


def test_every_style_of_description_names_every_attribute_of_every_object() -> None:
    random = np.random.default_rng(0)
    for _ in range(600):
        scene = compose(random, novel=None)
        told = describe(scene, random)
        assert scene.background in told
        for thing in scene.objects:
            words = {thing.shape, thing.colour, thing.size}
            assert all(word in told for word in words), told
            assert thing.texture == "plain" or thing.texture in told
            spoken = PLACES[thing.place] in told or "/" in told  # a table of rows tells places by order
            assert spoken, told
