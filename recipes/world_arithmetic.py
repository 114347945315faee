"""Visual semantic arithmetic on the embedded world: ``python -m mmbridge.recipes.world_arithmetic BRIDGE``.

A scene of one object, less a word, plus another of its kind (a red circle, less "red", plus "blue"), is looked up among
scenes of every object there is: shape, colour, size and texture, in the centre of one background. Right is the scene
that differs in that word alone. SIMAT's protocol, on pictures whose truth is known:

Embedding Arithmetic of Multimodal Queries for Image Retrieval
Guillaume Couairon, Matthijs Douze, Matthieu Cord, Holger Schwenk, arXiv 2112.03162

The vector of a word is the mean over the captions of all objects that have it, so that the step from one word to
another is the mean difference of captions that differ in that word alone; nothing in it is about the scene at hand.
Queries are drawn and rendered anew: none is in the pool, though an object like it is. Beside the score stand what
guessing reaches, the scene without arithmetic, and the second word without the scene.

Prints the scores and a few examples; draws the examples with --picture FILE.
"""

import argparse
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageDraw
from torch import Tensor

from mmbridge.bridge import Bridge
from mmbridge.cli.failure import ending
from mmbridge.cli.options import require_writable_file
from mmbridge.data.sample import Medium
from mmbridge.data.world.language import caption, looks
from mmbridge.data.world.render import SIDE, render
from mmbridge.data.world.scene import HELD_OUT, Object, Scene
from mmbridge.data.world.vocabulary import COLOURS, PLACES, SHAPES, SIZES, TEXTURES
from mmbridge.errors import MMBridgeError
from mmbridge.evaluation import bootstrap
from mmbridge.evaluation.arithmetic import moved, nearest, points
from mmbridge.evaluation.bootstrap import Estimate
from mmbridge.spaces import Space, shown, space_of

WORDS: Mapping[str, Sequence[str]] = {"shape": SHAPES, "colour": COLOURS, "size": SIZES, "texture": TEXTURES}
"""What an object is told by, and every word for it."""

NUMBERS = {each: number for number, each in enumerate(product(SHAPES, COLOURS, SIZES, TEXTURES))}
THINGS = tuple(Object(shape, colour, size, texture, PLACES.index("centre")) for shape, colour, size, texture in NUMBERS)
"""Every object there is, and its number by its words."""
BACKGROUND = "black"
BATCH = 64


@dataclass(frozen=True, slots=True)
class Query:
    """The scene of the object at ``start`` of ``THINGS``, in which ``old`` is to become ``new``; ``end`` is what then
    is right."""

    start: int
    of: str
    old: str
    new: str

    @property
    def end(self) -> int:
        shape, colour, size, texture = (self.new if of == self.of else getattr(THINGS[self.start], of) for of in WORDS)
        return NUMBERS[shape, colour, size, texture]


def drawn(count: int, seed: int) -> list[Query]:
    """Random queries, as many of each attribute as of the others or one more."""
    random = np.random.default_rng([seed, count])
    found = []
    for number in range(count):
        start, of = int(random.integers(len(THINGS))), list(WORDS)[number % len(WORDS)]
        old = getattr(THINGS[start], of)
        others = [word for word in WORDS[of] if word != old]
        found.append(Query(start, of, old, others[random.integers(len(others))]))
    return found


def scene(number: int, random: np.random.Generator) -> Scene:
    """The object at ``number`` of ``THINGS``, in the centre, a little shifted and turned, with noise of its own."""
    shift = float(random.uniform(-1.5, 1.5)), float(random.uniform(-1.5, 1.5))
    thing = replace(THINGS[number], shift=shift, turn=float(random.uniform(-8, 8)))
    return Scene((thing,), BACKGROUND, float(random.uniform(0, 10)), int(random.integers(2**31)))


def seen(bridge: Bridge, space: Space, pictures: Sequence[Image.Image]) -> Tensor:
    """(N, D), where pictures stand in the space."""
    collate, found = bridge.collate(), []
    for start in range(0, len(pictures), BATCH):
        part = [Medium("image", picture) for picture in pictures[start : start + BATCH]]
        batch = collate([shown("scene", medium) for medium in part])
        for bad in batch.bad:
            raise bad.error
        found.append(points(space.media(batch)))
    return torch.cat(found)


def words(space: Space) -> dict[str, Tensor]:
    """(D,) of every word."""
    captions = [caption(Scene((thing,), BACKGROUND)) for thing in THINGS]
    ids = [space.ids(text, text) for text in captions]
    told = torch.cat([space.texts(ids[start : start + BATCH]) for start in range(0, len(ids), BATCH)])
    return {
        word: told[[getattr(thing, of) == word for thing in THINGS]].mean(dim=0)
        for of, every in WORDS.items()
        for word in every
    }


def scores(queries: Sequence[Query], found: Sequence[int]) -> dict[str, Estimate]:
    """``right``: all of the object found; ``changed``: the new word is there; ``kept``: all the others are.

    Also ``right`` for each attribute, and for those whose right colour and shape no other split shows together.
    """
    right = np.array([number == query.end for query, number in zip(queries, found, strict=True)])
    pairs = [(query, THINGS[number]) for query, number in zip(queries, found, strict=True)]
    changed = np.array([getattr(thing, query.of) == query.new for query, thing in pairs])
    kept = np.array(
        [all(getattr(thing, of) == getattr(THINGS[query.start], of) for of in WORDS if of != query.of)
         for query, thing in pairs]
    )  # fmt: skip
    parts = {of: np.array([query.of == of for query in queries]) for of in WORDS}
    parts["held out"] = np.array([(THINGS[each.end].colour, THINGS[each.end].shape) in HELD_OUT for each in queries])
    of_parts = {f"right/{name}": bootstrap.mean(right[part]) for name, part in parts.items() if part.any()}
    return {"right": bootstrap.mean(right), "changed": bootstrap.mean(changed), "kept": bootstrap.mean(kept)} | of_parts


def picture(queries: Sequence[Query], before: Sequence[Image.Image], after: Sequence[Image.Image]) -> Image.Image:
    """A row for each query: its scene, the words, the scene that was found."""
    gap, wide = 8, 200
    sheet = Image.new("RGB", (2 * SIDE + wide + 2 * gap, len(queries) * (SIDE + gap) + gap), "white")
    draw = ImageDraw.Draw(sheet)
    for row, (query, old, new) in enumerate(zip(queries, before, after, strict=True)):
        top = gap + row * (SIDE + gap)
        sheet.paste(old, (gap, top))
        sheet.paste(new, (gap + SIDE + wide, top))
        draw.text(
            (gap + SIDE + wide // 2, top + SIDE // 2),
            f"- {query.old} + {query.new}  =",
            fill="black",
            anchor="mm",
            font_size=16,
        )
    return sheet


@dataclass(frozen=True, slots=True)
class Answers:
    """What was found: for each way of asking, the number of an object for each query. ``pictures`` are the scenes of
    the queries and ``pool`` those that were searched, in the order of ``THINGS``."""

    found: Mapping[str, Sequence[int]]
    pictures: Sequence[Image.Image]
    pool: Sequence[Image.Image]


def answered(bridge: Bridge, space: Space, queries: Sequence[Query], scale: float, seed: int) -> Answers:
    """Looks every query up: by arithmetic with a step of that scale first, and by what must do worse than it.

    Args:
        seed: of how scenes are rendered.
    """
    random = np.random.default_rng(seed)
    pool_pictures = [render(scene(number, random)) for number in range(len(THINGS))]
    pictures = [render(scene(query.start, random)) for query in queries]
    pool, starts = seen(bridge, space, pool_pictures), seen(bridge, space, pictures)
    told = words(space)
    old, new = (torch.stack([told[getattr(query, name)] for query in queries]) for name in ("old", "new"))
    ways = {
        "scene - old + new": moved(starts, old, new, scale),
        "the scene alone": starts,
        "the new word alone": new,
    }
    found = {name: nearest(each, pool).tolist() for name, each in ways.items()}
    return Answers(found, pictures, pool_pictures)


def measure(bridge: Bridge, given: argparse.Namespace) -> None:
    """Prints, draws and writes what ``main`` has been asked for."""
    space = space_of(bridge, given.space)
    queries = drawn(given.queries, given.seed)
    looked_up = answered(bridge, space, queries, given.scale, given.seed)
    found = looked_up.found
    print(f"{len(queries)} queries among {len(THINGS)} scenes of one object, chance {1 / len(THINGS):.4f}")
    print(f"space: {space.about}")
    results = {name: scores(queries, numbers) for name, numbers in found.items()}
    for name, each in results.items():
        print(f"\n{name}")
        for metric, score in each.items():
            print(f"  {metric:<15}{score}")
    print()
    answers = next(iter(found.values()))
    for query, number in list(zip(queries, answers, strict=True))[: given.examples]:
        verdict = "right" if number == query.end else f"expected {looks(THINGS[query.end])}"
        print(f"  {looks(THINGS[query.start])} - {query.old} + {query.new} = {looks(THINGS[number])} ({verdict})")
    if given.picture:
        some = slice(given.examples)
        after = [looked_up.pool[number] for number in answers[some]]
        picture(queries[some], looked_up.pictures[some], after).save(given.picture)
    if given.json:
        intervals = {
            name: {metric: [score.value, score.low, score.high] for metric, score in each.items()}
            for name, each in results.items()
        }
        report = {"space": space.about, "n": len(queries), "chance": 1 / len(THINGS), "scale": given.scale}
        given.json.write_text(json.dumps(report | {"scores": intervals}, indent=2) + "\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bridge", metavar="BRIDGE", help="a bridge or run folder, a hub id")
    parser.add_argument("--space", choices=["branch", "llm"], help="as for mmbridge eval --task retrieval")
    parser.add_argument("--queries", type=int, default=1000, help="how many scenes and words are drawn")
    parser.add_argument("--scale", type=float, default=1.0, help="of the step from word to word (SIMAT's lambda)")
    parser.add_argument("--examples", type=int, default=6, help="how many of them are shown")
    parser.add_argument("--picture", type=Path, metavar="FILE", help="draw the examples there, as PNG")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the scores there")
    parser.add_argument("--seed", type=int, default=0, help="of the queries and of how scenes are rendered")
    parser.add_argument("--device", help="cpu, cuda, cuda:1 ...; an accelerator where there is one by default")
    given = parser.parse_args()
    if given.queries < 1:
        parser.error(f"--queries: expected at least 1, found {given.queries}")
    if given.seed < 0:
        parser.error(f"--seed: expected 0 or more, found {given.seed}")
    if not math.isfinite(given.scale):
        parser.error(f"--scale: expected a number, found {given.scale}")
    if given.picture is not None and given.picture.suffix.lower() != ".png":
        parser.error(f"--picture: expected a name that ends in .png, found {given.picture}")
    try:
        for file in (given.picture, given.json):
            if file is not None:
                require_writable_file(file)
        measure(Bridge.from_pretrained(given.bridge, device=given.device), given)
    except MMBridgeError as error:
        raise SystemExit(ending(error)) from None


if __name__ == "__main__":
    main()
