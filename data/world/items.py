"""The embedded world's items as a data set: vectors to be described, asked about, and put beside each other.

What goes together is one conversation: an item's vector, that of an item or user consumed together with it, and the
first item's text.
"""

from typing import Literal

import numpy as np

from mmbridge.data.record import Question, Record, Task
from mmbridge.data.sample import Medium, conversation
from mmbridge.data.sources import RecordSource
from mmbridge.data.world.catalogue import PARTNERS, Item, ItemSplit, catalogue
from mmbridge.data.world.questions import pope
from mmbridge.llm.templates import TemplateName

Beside = Literal["item", "user"]
PROMPTS = ("tell me about it.", "describe it.", "what is it?")
"""What an item's text is asked for with."""
PAIRED = "describe the first."
"""The same where another stands beside it."""


class ItemRecords:
    """The items of a split, each with its text and questions. Vectors are in memory, one object for each item."""

    def __init__(self, split: ItemSplit, seed: int) -> None:
        self.split, self.seed, self._catalogue = split, seed, catalogue(seed)
        self._numbers = self._catalogue.split(split)

    def __len__(self) -> int:
        return len(self._numbers)

    def __getitem__(self, index: int, /) -> Record:
        if not 0 <= index < len(self):
            raise IndexError(index)
        item = self._catalogue.all[int(self._numbers[index])]
        return Record(
            id=f"item-{self.seed}-{item.number:03d}",
            medium=self.medium(item.number),
            text=item.text,
            facts=item.facts,
            objects=(item.thing.name,),
            questions=_questions(item, np.random.default_rng([13, self.seed, item.number])),
            split=self.split,
        )

    def medium(self, number: int) -> Medium:
        """An item's vector."""
        return Medium("vector", self._catalogue.items[number], f"item {number}")

    def fan(self, number: int) -> Medium:
        """A user's vector."""
        return Medium("vector", self._catalogue.users[number], f"user {number}")


class PairRecords:
    """Each item beside each of those of its split that it goes together with, as a conversation."""

    def __init__(self, split: ItemSplit, seed: int, beside: Beside) -> None:
        self._items, self._beside = ItemRecords(split, seed), beside
        found = catalogue(seed)
        self._others = found.partners(split) if beside == "item" else found.fans(split)

    def __len__(self) -> int:
        return len(self._items) * PARTNERS

    def __getitem__(self, index: int, /) -> Record:
        if not 0 <= index < len(self):
            raise IndexError(index)
        row, place = divmod(index, PARTNERS)
        first, number = self._items[row], int(self._others[row, place])
        assert first.medium is not None
        assert first.text is not None
        other = self._items.medium(number) if self._beside == "item" else self._items.fan(number)
        asked = (first.medium, other, PAIRED)
        messages = conversation(("user", asked), ("assistant", (first.text,)))
        return Record(id=f"{first.id}-{self._beside}-{number:03d}", messages=messages, split=self._items.split)


def items(
    split: ItemSplit,
    seed: int,
    task: Literal["caption", "vqa", "pope", "pairs", "all"],
    beside: Beside = "item",
    *,
    turns: int = 1,
    together: int = 1,
    template: TemplateName | None = None,
) -> RecordSource:
    """Samples of items; ``pairs`` puts each ``beside`` those that it goes together with."""
    name = f"world items:{split}"
    if task == "pairs":
        return RecordSource(PairRecords(split, seed, beside), "messages", PROMPTS, name, template=template)
    own: Task = task
    return RecordSource(ItemRecords(split, seed), own, PROMPTS, name, turns=turns, together=together, template=template)


def _questions(item: Item, random: np.random.Generator) -> tuple[Question, ...]:
    """What each of its words is, and two that ask for yes and for no."""
    thing = item.thing
    asked = (
        Question("what colour is the object?", (thing.colour,), "colour"),
        Question("what shape is the object?", (thing.shape,), "shape"),
        Question("is the object small or large?", (thing.size,), "size"),
        Question("is the object plain, striped or dotted?", (thing.texture,), "texture"),
    )
    return (*asked, *pope(item.scene, random))
