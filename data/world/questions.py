"""Questions about a scene, of every kind, with the answers that count as right.

Every kind is balanced by construction: yes and no are equally likely, and what is asked about is drawn before the
answer is known, so that a blind guesser gains nothing. A kind that a scene cannot carry (a relation with one object)
yields ``None``.
"""

from collections.abc import Callable

from mmbridge.data.record import Question
from mmbridge.data.world.draw import Random, pick
from mmbridge.data.world.language import article, plural
from mmbridge.data.world.scene import Object, Scene
from mmbridge.data.world.vocabulary import COLOURS, NUMBERS, PLACES, SHAPES


def any_thing(scene: Scene, random: Random) -> Object:
    """One object, each as likely."""
    return scene.objects[random.integers(len(scene.objects))]


def _yes(truth: bool) -> tuple[str, ...]:
    return ("yes",) if truth else ("no",)


def absent_name(scene: Scene, random: Random) -> str:
    """A colour and shape not together in the scene: often one that differs in a single attribute from one that is."""
    names = {thing.name for thing in scene.objects}
    while True:
        thing, near = any_thing(scene, random), random.random() < 0.6
        colour, shape = COLOURS[random.integers(8)], SHAPES[random.integers(8)]
        if near:
            colour, shape = (thing.colour, shape) if random.random() < 0.5 else (colour, thing.shape)
        if f"{colour} {shape}" not in names:
            return f"{colour} {shape}"


def existence(scene: Scene, random: Random) -> Question:
    truth = bool(random.integers(2))
    aim = random.integers(3)
    if aim == 0:
        name = any_thing(scene, random).name if truth else absent_name(scene, random)
        what = article(name)
    elif aim == 1:
        held = {t.shape for t in scene.objects}
        what = article(pick(random, *sorted(held if truth else set(SHAPES) - held)))
    else:
        held = {t.colour for t in scene.objects}
        what = "anything " + pick(random, *sorted(held if truth else set(COLOURS) - held))
    if random.random() < 0.15:
        none = "nothing" if aim == 2 else "no"
        return Question(f"is it true that there is {none} {what.split(' ', 1)[1]}?", _yes(not truth), "existence")
    form = pick(random, "is there {}?", "can you see {}?", "does the picture show {}?", "do you see {}?")
    return Question(form.format(what), _yes(truth), "existence")


def _sole(scene: Scene, random: Random, attribute: str) -> Object | None:
    """An object alone in having its value of an attribute."""
    values = [getattr(thing, attribute) for thing in scene.objects]
    alone = [thing for thing, value in zip(scene.objects, values, strict=True) if values.count(value) == 1]
    return alone[random.integers(len(alone))] if alone else None


def _where(thing: Object) -> str:
    return f"the {PLACES[thing.place]}"


def colour(scene: Scene, random: Random) -> Question | None:
    if random.random() < 0.12:
        return Question(
            pick(random, "what colour is the background?", "which colour is behind everything?"),
            (scene.background,),
            "colour",
        )
    if random.random() < 0.4:
        thing = any_thing(scene, random)
        form = pick(random, "what colour is the object at {}?", "what is the colour of the thing at {}?")
        return Question(form.format(_where(thing)), (thing.colour,), "colour")
    sole = _sole(scene, random, "shape")
    if sole is None:
        return None
    form = pick(random, "what colour is the {}?", "which colour does the {} have?", "what is the colour of the {}?")
    return Question(form.format(sole.shape), (sole.colour,), "colour")


def shape(scene: Scene, random: Random) -> Question | None:
    if random.random() < 0.4:
        thing = any_thing(scene, random)
        form = pick(random, "what shape is the object at {}?", "what is the shape of the thing at {}?")
        return Question(form.format(_where(thing)), (thing.shape,), "shape")
    sole = _sole(scene, random, "colour")
    if sole is None:
        return None
    form = pick(random, "what shape is the {} object?", "what is the {} thing?", "which shape is {}?")
    return Question(form.format(sole.colour), (sole.shape,), "shape")


def size(scene: Scene, random: Random) -> Question | None:
    thing = any_thing(scene, random)
    what = pick(random, f"the {thing.name}", f"the object at {_where(thing)}")
    form = pick(random, "what size is {}?", "is {} small or large?", "how big is {}?")
    return Question(form.format(what), (thing.size,), "size")


def texture(scene: Scene, random: Random) -> Question | None:
    thing = any_thing(scene, random)
    what = pick(random, f"the {thing.name}", f"the object at {_where(thing)}")
    form = pick(random, "what texture does {} have?", "is {} plain, striped or dotted?", "what is the texture of {}?")
    return Question(form.format(what), (thing.texture,), "texture")


def count(scene: Scene, random: Random) -> Question | None:
    aim = random.integers(4)
    if aim == 0:
        what, held = "objects", len(scene.objects)
    else:
        thing = any_thing(scene, random)
        other = random.random() < 0.3
        if aim == 1:
            wanted = SHAPES[random.integers(8)] if other else thing.shape
            what, held = plural(wanted), sum(t.shape == wanted for t in scene.objects)
        elif aim == 2:
            wanted = COLOURS[random.integers(8)] if other else thing.colour
            what, held = f"{wanted} objects", sum(t.colour == wanted for t in scene.objects)
        else:
            what, held = f"{thing.size} objects", sum(t.size == thing.size for t in scene.objects)
    form = pick(random, "how many {} are there?", "count the {}.", "what is the number of {}?")
    return Question(form.format(what), (NUMBERS[held], str(held)), "count")


def position(scene: Scene, random: Random) -> Question | None:
    sole = _sole(scene, random, "shape") if random.random() < 0.4 else None
    what = sole.shape if sole else None
    thing = sole or any_thing(scene, random)
    form = pick(random, "where is the {}?", "in which part of the picture is the {}?", "what is the place of the {}?")
    return Question(form.format(what or thing.name), (PLACES[thing.place],), "position")


def relation(scene: Scene, random: Random) -> Question | None:
    if len(scene.objects) < 2:
        return None
    i, j = (int(k) for k in random.choice(len(scene.objects), 2, replace=False))
    a, b = scene.objects[i], scene.objects[j]
    options: list[Question] = []
    if a.column != b.column:
        side = "left" if a.column < b.column else "right"
        options += [
            Question(f"is the {a.name} to the left of the {b.name}?", _yes(side == "left"), "relation"),
            Question(f"is the {a.name} left or right of the {b.name}?", (side,), "relation"),
        ]
    if a.row != b.row:
        side = "above" if a.row < b.row else "below"
        options += [
            Question(f"is the {a.name} below the {b.name}?", _yes(side == "below"), "relation"),
            Question(f"is the {a.name} above or below the {b.name}?", (side,), "relation"),
        ]
    if a.size != b.size or random.random() < 0.3:
        larger = (a.size, b.size) == ("large", "small")
        options += [
            Question(f"is the {a.name} larger than the {b.name}?", _yes(larger), "relation"),
            Question(f"do the {a.name} and the {b.name} have the same size?", _yes(a.size == b.size), "relation"),
        ]
    return options[random.integers(len(options))] if options else None


KINDS: dict[str, Callable[[Scene, Random], Question | None]] = {
    "existence": existence, "colour": colour, "shape": shape, "size": size, "texture": texture,
    "count": count, "position": position, "relation": relation,
}  # fmt: skip


def ask(scene: Scene, random: Random, kind: str | None = None) -> Question:
    """One question of a kind, or of a random one; of another kind where the scene cannot carry that one."""
    names = tuple(KINDS)
    kind = kind or pick(random, *names)
    while True:
        found = KINDS[kind](scene, random)
        if found is not None:
            return found
        kind = pick(random, *names)


def pope(scene: Scene, random: Random) -> tuple[Question, Question]:
    """Two POPE-style existence questions (Li et al. 2023, arXiv 2305.10355): one with the answer yes, one with no.

    The absent object is drawn at random or adversarially (it shares its colour or its shape with a present one).
    """
    form = "is there {} in the image?"
    return (
        Question(form.format(article(any_thing(scene, random).name)), ("yes",), "pope"),
        Question(form.format(article(absent_name(scene, random))), ("no",), "pope"),
    )


def questions(scene: Scene, random: Random) -> tuple[Question, ...]:
    """One question of every kind, and of another kind in place of one that the scene cannot carry; then ``pope``.

    The kinds come in random order, so that where several questions make a conversation each kind opens some.
    """
    kinds = random.permutation(list(KINDS))
    return (*(ask(scene, random, str(kind)) for kind in kinds), *pope(scene, random))
