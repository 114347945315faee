"""Pictures show what their scenes say."""

import numpy as np

from mmbridge.data.world.render import CELL, RADIUS, RGB, SIDE, centre, render
from mmbridge.data.world.scene import Object, Scene, sample_scene
from mmbridge.data.world.vocabulary import SHAPES


def test_a_picture_is_rgb_of_fixed_size_and_repeats_bit_for_bit() -> None:
    scene = sample_scene("train", 0, 5)
    first, second = render(scene), render(scene)
    assert first.mode == "RGB"
    assert first.size == (SIDE, SIDE)
    assert first.tobytes() == second.tobytes()


def test_the_background_fills_an_empty_corner_and_objects_have_their_colour() -> None:
    thing = Object("square", "red", "large", "plain", place=8)
    pixels = np.asarray(render(Scene((thing,), "white"))).astype(int)
    assert (pixels[: 2 * CELL, : 2 * CELL] == RGB["white"]).all()
    x, y = (int(v) for v in centre(thing))
    assert (pixels[y - 5 : y + 5, x - 5 : x + 5] == RGB["red"]).all()


def test_objects_stay_in_their_cell_and_are_larger_than_a_patch() -> None:
    for shape in SHAPES:
        for size in RADIUS:
            thing = Object(shape, "cyan", size, "striped", place=4, shift=(1.5, -1.5), turn=8)
            drawn = (np.asarray(render(Scene((thing,), "black"))).astype(int) != RGB["black"]).any(-1)
            rows, columns = np.nonzero(drawn)
            assert rows.min() >= CELL
            assert rows.max() < 2 * CELL
            assert columns.min() >= CELL
            assert columns.max() < 2 * CELL
            assert np.ptp(rows) > 12


def test_any_two_shapes_sizes_and_textures_differ_in_many_pixels() -> None:
    kinds = [
        (shape, size, texture) for shape in SHAPES for size in RADIUS for texture in ("plain", "striped", "dotted")
    ]
    drawn = [
        np.asarray(render(Scene((Object(shape, "blue", size, texture, 4),), "grey"))).astype(int)
        for shape, size, texture in kinds
    ]
    for i, first in enumerate(drawn):
        for second in drawn[i + 1 :]:
            assert (np.abs(first - second).sum(-1) > 60).sum() >= 20
