"""Scenes in words, and words back into facts.

``caption`` is the one canonical caption of a scene, ``references`` are other ways to say the same, and ``describe``
draws from many styles (sentences, lists, tables, word salad): the language model reads all of them. ``parse_facts``
reads the facts out of any caption-like text; of a canonical caption it returns exactly the scene's facts.
"""

import re
from collections.abc import Callable, Sequence

import numpy as np

from mmbridge.data.world.scene import Object, Scene
from mmbridge.data.world.vocabulary import BACKGROUNDS, COLOURS, PLACES, SHAPES, SIZES, TEXTURES


def at(place: int) -> str:
    """A place with its preposition."""
    return "in the centre" if PLACES[place] == "centre" else f"at the {PLACES[place]}"


def looks(thing: Object) -> str:
    """Size, texture (unless plain), colour and shape: ``small striped red circle``."""
    return " ".join(word for word in (thing.size, thing.texture, thing.colour, thing.shape) if word != "plain")


def plural(shape: str) -> str:
    return shape + ("es" if shape == "cross" else "s")


def article(words: str) -> str:
    return ("an " if words[0] in "aeiou" else "a ") + words


def caption(scene: Scene) -> str:
    """The canonical caption: every object in reading order, then the background."""
    things = ", ".join(f"{article(looks(thing))} {at(thing.place)}" for thing in scene.objects)
    return f"{things}, on a {scene.background} background."


def joined(parts: Sequence[str]) -> str:
    """``a``, ``a and b``, ``a, b and c``."""
    return parts[0] if len(parts) == 1 else ", ".join(parts[:-1]) + " and " + parts[-1]


def _sentence(scene: Scene) -> str:
    things = joined([f"{article(looks(t))} {at(t.place)}" for t in scene.objects])
    return f"there is {things}. the background is {scene.background}."


def _sentences(scene: Scene) -> str:
    things = " ".join(f"{at(t.place)} there is {article(looks(t))}." for t in scene.objects)
    return f"on a {scene.background} background. {things}"


def _clauses(scene: Scene) -> str:
    verbs = ("is", "sits", "lies")
    things = " ".join(
        f"the {t.colour} {t.shape}, which is {t.size}{'' if t.texture == 'plain' else ' and ' + t.texture},"
        f" {verbs[i % 3]} {at(t.place)}."
        for i, t in enumerate(scene.objects)
    )
    return f"{things} everything else is {scene.background}."


def _telegram(scene: Scene) -> str:
    things = " | ".join(f"{t.colour} {t.shape} {t.size} {t.texture} {PLACES[t.place]}" for t in scene.objects)
    return f"{things} | {scene.background} background"


def _fields(scene: Scene) -> str:
    things = "; ".join(
        f"shape {t.shape}, colour {t.colour}, size {t.size}, texture {t.texture}, place {PLACES[t.place]}"
        for t in scene.objects
    )
    return f"background {scene.background}; {things}"


def _places(scene: Scene) -> str:
    held = {t.place: looks(t) for t in scene.objects}
    cells = ", ".join(f"{place}: {held.get(i, 'nothing')}" for i, place in enumerate(PLACES))
    return f"{cells}. background: {scene.background}"


def _rows(scene: Scene) -> str:
    held = {t.place: looks(t) for t in scene.objects}
    rows = [" , ".join(held.get(3 * row + column, "-") for column in range(3)) for row in range(3)]
    return f"{' / '.join(rows)} ({scene.background})"


def references(scene: Scene) -> list[str]:
    """The canonical caption and three other ways to say it, for CIDEr and BLEU."""
    return [caption(scene), _sentence(scene), _sentences(scene), _clauses(scene)]


def _patches(scene: Scene, random: np.random.Generator) -> str:
    """A 4×4 table of what each part of the picture shows, every part named on its own."""
    partial, cells = random.random() < 0.5, []
    for row in range(4):
        for column in range(4):
            near = [
                t
                for t in scene.objects
                if max(abs(t.row * 1.25 + 0.25 - row), abs(t.column * 1.25 + 0.25 - column)) < 0.7
            ]
            words = [word for t in near for word in (*looks(t).split(), PLACES[t.place])]
            random.shuffle(words)
            if partial:
                words = words[: max(1, round(len(words) * random.uniform(0.6, 1)))]
            cells.append(" ".join(words) if words else scene.background)
    if partial:
        cells += [f"{looks(t)} {PLACES[t.place]}" for t in scene.objects]
    return " , ".join(cells)


def _salad(scene: Scene, random: np.random.Generator) -> str:
    """Each object's words in any order, some twice."""
    groups = []
    for thing in scene.objects:
        words = [*looks(thing).split(), PLACES[thing.place]]
        words += [str(w) for w in random.choice(words, random.integers(0, 4))]
        random.shuffle(words)
        groups.append(" ".join(words))
    groups.insert(int(random.integers(len(groups) + 1)), scene.background)
    return " ; ".join(groups)


_PLAIN: tuple[Callable[[Scene], str], ...] = (
    caption, _sentence, _sentences, _clauses, _telegram, _fields, _places, _rows,
)  # fmt: skip


_EASY = (caption, _sentence, _telegram, _clauses)


def describe_simply(scene: Scene, random: np.random.Generator) -> str:
    """A full description in one of a few short styles."""
    return _EASY[random.integers(len(_EASY))](scene)


def describe(scene: Scene, random: np.random.Generator) -> str:
    """One of many full descriptions, often with the objects out of order."""
    if random.random() < 0.6:
        order = random.permutation(len(scene.objects))
        scene = Scene(tuple(scene.objects[i] for i in order), scene.background)
    style = int(random.integers(len(_PLAIN) + 3))
    if style < len(_PLAIN):
        return _PLAIN[style](scene)
    return _patches(scene, random) if style == len(_PLAIN) else _salad(scene, random)


CAPTION_PROMPTS = (
    "describe the picture.", "describe the image.", "what is in the picture?", "what does the image show?",
    "write a caption.", "give a caption for the image.", "what can you see?", "tell me what is in the image.",
)  # fmt: skip
"""Instructions that ask for the canonical caption."""


def brief(scene: Scene) -> str:
    """Only what is there."""
    return joined([article(t.name) for t in scene.objects]) + "."


def listing(scene: Scene) -> str:
    """One object a line."""
    return "\n".join(f"- {looks(t)}, {PLACES[t.place]}" for t in scene.objects)


_PLACE = "|".join(sorted(PLACES, key=len, reverse=True))
_THING = re.compile(
    rf"(?:(?P<size>{'|'.join(SIZES)})\s+)?(?:(?P<texture>{'|'.join(TEXTURES)})\s+)?"
    rf"(?P<colour>{'|'.join(COLOURS)})\s+(?P<shape>{'|'.join(SHAPES)})\b"
    rf"(?:\s+(?:at|in|on)\s+the\s+(?P<place>{_PLACE})\b)?"
)
_BACKGROUND = re.compile(rf"(?P<before>{'|'.join(BACKGROUNDS)})\s+background|background\s+is\s+(?P<after>\w+)")


def parse_facts(text: str) -> frozenset[tuple[str, ...]]:
    """The facts a caption states, in the form of ``Scene.facts``: exact on canonical captions, tolerant of less."""
    text = text.lower()
    facts: set[tuple[str, ...]] = set()
    for match in _THING.finditer(text):
        name = f"{match['colour']} {match['shape']}"
        facts.add((name,))
        facts |= {
            (name, word) for word in (match["size"], match["texture"], match["place"]) if word and word != "plain"
        }
    facts |= {("background", m["before"] or m["after"]) for m in _BACKGROUND.finditer(text)}
    return frozenset(facts)
