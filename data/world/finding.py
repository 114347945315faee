"""Instructions to find things in a scene and say what they are.

A yes/no question teaches a language model little until it can already find what is named: its answer is one of two
words. Here the answer spells out what was found, or that there is nothing, so that every word of it teaches finding.
With these beside them, the yes/no questions of ``questions.py`` are learnt within minutes; without, not at all.
"""

from collections.abc import Callable, Sequence

from mmbridge.data.world.draw import Random, pick
from mmbridge.data.world.language import article, at, joined, looks, plural
from mmbridge.data.world.questions import absent_name, any_thing
from mmbridge.data.world.scene import Object, Scene
from mmbridge.data.world.vocabulary import COLOURS, PLACES, SHAPES, SIZES

Answered = tuple[str, str]
"""An instruction and its answer."""


def _listed(things: Sequence[Object], none: str = "none.") -> str:
    """Each with its looks; ``none`` where there is none."""
    return f"{joined([article(looks(thing)) for thing in things])}." if things else none


def tell(scene: Scene, random: Random) -> Answered:
    """All about one object, which may not be there."""
    if random.random() < 0.4:
        return f"tell me about the {absent_name(scene, random)}.", "there is none."
    thing = any_thing(scene, random)
    return f"tell me about the {thing.name}.", f"{article(looks(thing))} {at(thing.place)}."


def explain(scene: Scene, random: Random) -> Answered:
    """Whether an object is there, and the reason."""
    if random.random() < 0.5:
        name = absent_name(scene, random)
        return f"is there {article(name)}? say why.", f"no, there is no {name}."
    thing = any_thing(scene, random)
    return f"is there {article(thing.name)}? say why.", f"yes, {article(looks(thing))} {at(thing.place)}."


def of_colour(scene: Scene, random: Random) -> Answered:
    colour = any_thing(scene, random).colour if random.random() < 0.7 else pick(random, *COLOURS)
    return f"which objects are {colour}?", _listed([t for t in scene.objects if t.colour == colour])


def of_shape(scene: Scene, random: Random) -> Answered:
    shape = any_thing(scene, random).shape if random.random() < 0.7 else pick(random, *SHAPES)
    return f"which objects are {plural(shape)}?", _listed([t for t in scene.objects if t.shape == shape])


def of_size(scene: Scene, random: Random) -> Answered:
    size = pick(random, *SIZES)
    return f"which objects are {size}?", _listed([t for t in scene.objects if t.size == size])


def in_place(scene: Scene, random: Random) -> Answered:
    place = any_thing(scene, random).place if random.random() < 0.7 else int(random.integers(len(PLACES)))
    return f"what is {at(place)}?", _listed([t for t in scene.objects if t.place == place], "nothing.")


def _two(scene: Scene, random: Random) -> tuple[Object, Object]:
    one, other = (int(i) for i in random.choice(len(scene.objects), 2, replace=False))
    return scene.objects[one], scene.objects[other]


def where(scene: Scene, random: Random) -> Answered:
    """The places of two objects."""
    one, other = _two(scene, random)
    return (
        f"where are the {one.name} and the {other.name}?",
        f"the {one.name} is {at(one.place)}, the {other.name} {at(other.place)}.",
    )


def beside(scene: Scene, random: Random) -> Answered:
    """What lies on one side of an object."""
    one = any_thing(scene, random)
    sides: dict[str, Callable[[Object], bool]] = {
        "left of": lambda thing: thing.column < one.column,
        "right of": lambda thing: thing.column > one.column,
        "above": lambda thing: thing.row < one.row,
        "below": lambda thing: thing.row > one.row,
    }
    side = pick(random, *sides)
    return f"what is {side} the {one.name}?", _listed([t for t in scene.objects if sides[side](t)], "nothing.")


def compare(scene: Scene, random: Random) -> Answered:
    """Which of two objects is larger, which is above, which is on the left."""
    one, other = _two(scene, random)
    said = (
        f"both are {one.size}"
        if one.size == other.size
        else f"the {(one if one.size == 'large' else other).name} is larger"
    )
    if one.row != other.row:
        said += f", the {(one if one.row < other.row else other).name} is above"
    if one.column != other.column:
        said += f", the {(one if one.column < other.column else other).name} is on the left"
    return f"compare the {one.name} and the {other.name}.", f"{said}."


_ONE = (tell, explain, of_colour, of_shape, of_size, in_place)
_TWO = (where, beside, compare)


def find(scene: Scene, random: Random) -> Answered:
    """One instruction of any of these kinds."""
    kinds = _ONE + _TWO if len(scene.objects) > 1 else _ONE
    return kinds[random.integers(len(kinds))](scene, random)
