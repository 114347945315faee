"""Scenes: pure functions of (split, seed, index), with splits that never mix what they must not."""

import pytest

from mmbridge.data.world.scene import HELD_OUT, SEEN, sample_scene
from mmbridge.data.world.vocabulary import COLOURS, PLACES, SHAPES
from mmbridge.errors import DataError


def test_a_scene_is_a_pure_function_of_split_seed_and_index() -> None:
    assert sample_scene("test", 3, 17) == sample_scene("test", 3, 17)
    others = [sample_scene("test", 3, 18), sample_scene("test", 4, 17), sample_scene("train", 3, 17)]
    assert all(other != sample_scene("test", 3, 17) for other in others)


def test_held_out_pairs_use_every_colour_and_every_shape_once() -> None:
    assert sorted(colour for colour, _ in HELD_OUT) == sorted(COLOURS)
    assert sorted(shape for _, shape in HELD_OUT) == sorted(SHAPES)
    assert len(SEEN) == 56
    assert not HELD_OUT & set(SEEN)


@pytest.mark.parametrize("split", ["train", "validation", "test"])
def test_held_out_pairs_never_appear_elsewhere(split: str) -> None:
    shown = {(t.colour, t.shape) for i in range(1500) for t in sample_scene(split, 0, i).objects}
    assert shown == set(SEEN)


def test_every_scene_of_the_combinations_split_shows_a_held_out_pair() -> None:
    scenes = [sample_scene("combinations", 0, i) for i in range(500)]
    assert all(any((t.colour, t.shape) in HELD_OUT for t in scene.objects) for scene in scenes)
    assert {(t.colour, t.shape) for scene in scenes for t in scene.objects} >= HELD_OUT


def test_a_scene_has_one_to_four_objects_told_apart_by_name_and_place() -> None:
    scenes = [sample_scene("train", 1, i) for i in range(500)]
    assert {len(scene.objects) for scene in scenes} == {1, 2, 3, 4}
    for scene in scenes:
        places = [thing.place for thing in scene.objects]
        assert places == sorted(set(places))
        assert len({thing.name for thing in scene.objects}) == len(places)
        assert len(scene.facts) == 1 + sum(3 + (t.texture != "plain") for t in scene.objects)
        assert ("background", scene.background) in scene.facts
        assert all((t.name, PLACES[t.place]) in scene.facts for t in scene.objects)


def test_an_unknown_split_is_one_line() -> None:
    with pytest.raises(DataError, match=r"split: expected one of train, .*, found 'tset'"):
        sample_scene("tset", 0, 0)
