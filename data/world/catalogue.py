"""Items that nobody has seen: a catalogue, users with tastes, what they consumed, and the vectors that follow from it.

An item is a kind of thing, told in the world's words: a size, a texture, a colour and a shape. A user likes some values
of each more than others and consumes items accordingly. All that is known of an item besides its words is who consumed
it: items and users that are alike in that have vectors that are alike, the factors of the matrix of consumption

    R − its items' means ≈ U·Σ·Vᵀ     users U·√Σ, items V·√Σ

by its leading singular values. Everything is a function of a seed.
"""

from dataclasses import dataclass
from functools import cached_property, lru_cache
from itertools import product
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from mmbridge.data.world.language import article, looks
from mmbridge.data.world.scene import Object, Scene
from mmbridge.data.world.vocabulary import COLOURS, SHAPES, SIZES, TEXTURES

ItemSplit = Literal["train", "validation", "test"]

USERS = 3000
CONSUMED = 24
"""Items of each user."""
WIDTH = 24
"""Of vectors: a few more than an item's words are free to say."""
PARTNERS = 4
"""Of an item: those of its split that were consumed together with it most."""
_CENTRE = 4
_SHARES: tuple[tuple[ItemSplit, int], ...] = (("test", 64), ("validation", 32), ("train", 288))
"""Items of each split, which add up to all kinds of thing there are."""


@dataclass(frozen=True, slots=True)
class Item:
    """One thing of the catalogue, and its number there."""

    number: int
    thing: Object

    @property
    def text(self) -> str:
        """``a small striped red circle.``"""
        return f"{article(looks(self.thing))}."

    @property
    def scene(self) -> Scene:
        """It alone, for questions about it that have no answer in where it is."""
        return Scene((self.thing,), "white")

    @property
    def facts(self) -> tuple[tuple[str, ...], ...]:
        """What its text states."""
        name = self.thing.name
        words = [word for word in (self.thing.size, self.thing.texture) if word != "plain"]
        return ((name,), *((name, word) for word in sorted(words)))


class Catalogue:
    """All items, users and vectors of a seed.

    ``consumed`` (USERS, items) is 1 where a user consumed an item; ``items`` (items, WIDTH), ``users`` (USERS, WIDTH)
    are vectors, in float32, of which an item's and a user's have a large product where she might like it.
    """

    def __init__(self, seed: int) -> None:
        kinds = product(SIZES, TEXTURES, COLOURS, SHAPES)
        things = [Object(shape, colour, size, texture, _CENTRE) for size, texture, colour, shape in kinds]
        self.all = tuple(Item(number, thing) for number, thing in enumerate(things))
        random = np.random.default_rng([11, seed])
        order, begin = random.permutation(len(things)), 0
        self._splits = dict[ItemSplit, NDArray[np.int64]]()
        for split, count in _SHARES:
            self._splits[split] = np.sort(order[begin : begin + count])
            begin += count
        assert begin == len(things)
        self.consumed = self._drawn(random)
        self.items, self.users = _factors(self.consumed)

    def split(self, split: ItemSplit) -> NDArray[np.int64]:
        """The numbers of its items."""
        return self._splits[split]

    @cached_property
    def together(self) -> NDArray[np.float64]:
        """(items, items): how many users consumed both, over the root of the product of how many consumed each."""
        both = self.consumed.T @ self.consumed
        each = np.sqrt(np.diag(both).clip(min=1))
        found: NDArray[np.float64] = both / each[:, None] / each[None]
        return found

    def partners(self, split: ItemSplit) -> NDArray[np.int64]:
        """(items of the split, PARTNERS), nearest first, none of them the item itself."""
        own = self._splits[split]
        near = self.together[np.ix_(own, own)].copy()
        np.fill_diagonal(near, -1)
        return own[np.argsort(-near, axis=1, kind="stable")[:, :PARTNERS]]

    def fans(self, split: ItemSplit) -> NDArray[np.int64]:
        """(items of the split, PARTNERS): users who consumed each item, those first whose vectors are nearest to it."""
        own = self._splits[split]
        near = np.where(self.consumed.T[own] > 0, self.items[own] @ self.users.T, -np.inf)
        return np.argsort(-near, axis=1, kind="stable")[:, :PARTNERS]

    def _drawn(self, random: np.random.Generator) -> NDArray[np.float64]:
        """Each user's items, without replacement, likelier the more she likes them (Gumbel's trick)."""
        liked = random.gumbel(size=(USERS, len(self.all)))
        for values, strength in ((SIZES, 1.0), (TEXTURES, 1.2), (COLOURS, 1.5), (SHAPES, 1.5)):
            tastes = random.normal(scale=strength, size=(USERS, len(values)))
            liked += tastes[:, [values.index(self._value(item.thing, values)) for item in self.all]]
        chosen = np.argpartition(-liked, CONSUMED, axis=1)[:, :CONSUMED]
        consumed = np.zeros((USERS, len(self.all)))
        np.put_along_axis(consumed, chosen, 1, axis=1)
        return consumed

    @staticmethod
    def _value(thing: Object, values: tuple[str, ...]) -> str:
        return next(word for word in (thing.size, thing.texture, thing.colour, thing.shape) if word in values)


def _factors(consumed: NDArray[np.float64]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Vectors of items and of users. Signs, which the decomposition leaves open, make each factor's largest positive;
    items' vectors have 1 for a root mean square."""
    left, singular, right = np.linalg.svd(consumed - consumed.mean(axis=0), full_matrices=False)
    items, users, root = right[:WIDTH].T, left[:, :WIDTH], np.sqrt(singular[:WIDTH])
    signs = np.sign(items[np.abs(items).argmax(axis=0), np.arange(WIDTH)])
    items, users = items * signs * root, users * signs * root
    scale = np.sqrt(np.mean(items**2))
    return (items / scale).astype(np.float32), (users / scale).astype(np.float32)


@lru_cache(maxsize=4)
def catalogue(seed: int) -> Catalogue:
    """The catalogue of a seed, made once in a process."""
    return Catalogue(seed)
