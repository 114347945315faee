"""Scenes: one to four objects on a 3×3 grid, sampled so that everything about them is known.

A scene is a pure function of (split, seed, index). The splits differ in their random streams; ``combinations`` also
in what it shows: every scene of it holds at least one of the (colour, shape) pairs in ``HELD_OUT``, which no other
split ever shows. Encoders and connectors are trained on ``train`` alone.
"""

from dataclasses import dataclass
from typing import get_args

import numpy as np

from mmbridge.data.world.vocabulary import BACKGROUNDS, COLOURS, PLACES, SHAPES, SIZES, TEXTURES, Split
from mmbridge.errors import DataError

HELD_OUT = frozenset((colour, SHAPES[(3 * i + 1) % len(SHAPES)]) for i, colour in enumerate(COLOURS))
"""(colour, shape) pairs that only the ``combinations`` split shows: each colour once, each shape once."""

SEEN = tuple((colour, shape) for colour in COLOURS for shape in SHAPES if (colour, shape) not in HELD_OUT)
"""(colour, shape) pairs of every other split."""

_TEXTURE_ODDS = (0.5, 0.25, 0.25)
_COUNT_ODDS = (0.2, 0.3, 0.3, 0.2)


@dataclass(frozen=True, slots=True)
class Object:
    """One thing in a scene: ``place`` indexes ``PLACES``, ``shift`` is in pixels and ``turn`` in degrees."""

    shape: str
    colour: str
    size: str
    texture: str
    place: int
    shift: tuple[float, float] = (0.0, 0.0)
    turn: float = 0.0

    @property
    def name(self) -> str:
        """Colour and shape: unique within a scene."""
        return f"{self.colour} {self.shape}"

    @property
    def row(self) -> int:
        return self.place // 3

    @property
    def column(self) -> int:
        return self.place % 3


@dataclass(frozen=True, slots=True)
class Scene:
    """Objects in reading order on a background; ``noise`` is in grey levels and ``grain`` seeds it."""

    objects: tuple[Object, ...]
    background: str
    noise: float = 0.0
    grain: int = 0

    @property
    def facts(self) -> frozenset[tuple[str, ...]]:
        """What is true of it: an object, an object's size, texture (unless plain) and place, and the background."""
        facts: set[tuple[str, ...]] = {("background", self.background)}
        for thing in self.objects:
            facts |= {(thing.name,), (thing.name, thing.size), (thing.name, PLACES[thing.place])}
            if thing.texture != "plain":
                facts.add((thing.name, thing.texture))
        return frozenset(facts)


def stream(split: str, seed: int, index: int) -> np.random.Generator:
    """The random numbers of one scene of a split."""
    splits = get_args(Split)
    if split not in splits:
        raise DataError("split", f"expected one of {', '.join(splits)}, found {split!r}")
    return np.random.default_rng([splits.index(split), seed, index])


def sample_scene(split: str, seed: int, index: int) -> Scene:
    """The scene at ``index`` of a split.

    Raises:
        DataError: the split is not one of ``Split``.
    """
    return compose(stream(split, seed, index), novel=split == "combinations")


def compose(random: np.random.Generator, *, novel: bool | None = False) -> Scene:
    """A random scene: with no held-out pair, with at least one (``novel``), or with any pairs (``novel=None``)."""
    count = int(random.choice(4, p=_COUNT_ODDS)) + 1
    held_out = sorted(HELD_OUT)
    pool = [*SEEN, *held_out] if novel is None else list(SEEN)
    pairs = [pool[i] for i in random.choice(len(pool), count, replace=False)]
    if novel:
        chosen = random.choice(len(held_out), count, replace=False)
        swap = random.random(count) < 0.5
        swap[random.integers(count)] = True
        pairs = [held_out[k] if new else pair for pair, k, new in zip(pairs, chosen, swap, strict=True)]
    places = sorted(int(p) for p in random.choice(len(PLACES), count, replace=False))
    objects = tuple(
        Object(
            shape=shape,
            colour=colour,
            size=SIZES[random.integers(len(SIZES))],
            texture=TEXTURES[random.choice(len(TEXTURES), p=_TEXTURE_ODDS)],
            place=place,
            shift=(float(random.uniform(-1.5, 1.5)), float(random.uniform(-1.5, 1.5))),
            turn=float(random.uniform(-8, 8)),
        )
        for (colour, shape), place in zip(pairs, places, strict=True)
    )
    return Scene(
        objects,
        background=BACKGROUNDS[random.integers(len(BACKGROUNDS))],
        noise=float(random.uniform(0, 10)),
        grain=int(random.integers(2**31)),
    )
