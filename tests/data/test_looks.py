"""Looks: what a medium is told makes two of one; where nothing is told, looks are media."""

import pickle
from dataclasses import replace

from PIL import Image

from mmbridge.data.batch import Batch
from mmbridge.data.collate import Collate
from mmbridge.data.looks import Ids, Looks
from mmbridge.data.sample import Medium, Sample, conversation
from tests.data.test_dealing import WORDS
from tests.data.test_loader import COLLATE

RED, BLUE = (Medium("image", Image.new("RGB", (8, 8), colour), colour) for colour in ("red", "blue"))


def asked(*questions: tuple[str, tuple[Medium, ...]]) -> list[Sample]:
    return [
        Sample(str(n), conversation(("user", (*media, question)), ("assistant", (f"answer {n}",))))
        for n, (question, media) in enumerate(questions)
    ]


def letters(sample: Sample) -> list[Ids]:
    """Beside each medium the letters of its turn."""
    told = "".join(part for part in sample.messages[0].content if isinstance(part, str))
    return [tuple(map(ord, told))] * len(sample.media)


def last(sample: Sample) -> list[Ids]:
    return [ids[-1:] for ids in letters(sample)]


SAMPLES = asked(("a?", (RED,)), ("b?", (RED,)), ("none", ()), ("a?", (BLUE, RED)), ("b!", (RED,)))
A, B, LOUD = ((97, 63), (98, 63), (98, 33))


def test_a_medium_told_the_same_is_looked_at_once() -> None:
    batch = replace(COLLATE, instructions={"reader": ("image", letters)})(SAMPLES)
    assert batch.media == ((0,), (0,), (), (1, 0), (0,))
    assert batch.looked == ((0,), (1,), (), (2, 0), (3,))
    assert batch.looks == {"image": Looks((0, 0, 1, 0), {"reader": (A, B, A, LOUD)})}


def test_looks_differ_where_any_connector_is_told_something_else() -> None:
    coarse = replace(COLLATE, instructions={"coarse": ("image", last)})(SAMPLES)
    assert coarse.looked == ((0,), (0,), (), (1, 0), (2,))
    both = replace(COLLATE, instructions={"coarse": ("image", last), "fine": ("image", letters)})(SAMPLES)
    assert both.looked == ((0,), (1,), (), (2, 0), (3,))
    assert both.looks["image"].instructions == {"coarse": ((63,), (63,), (63,), (33,)), "fine": (A, B, A, LOUD)}


def test_where_nothing_is_told_looks_are_media() -> None:
    for collate in (COLLATE, replace(COLLATE, instructions={"listener": ("audio", letters)})):
        batch = collate(SAMPLES)
        assert batch.looked == batch.media == ((0,), (0,), (), (1, 0), (0,))
        assert not batch.looks.get("image")
    assert Batch(batch.prompts, batch.views, batch.samples).looked == ((0,), (1,), (), (2, 3), (4,))


def test_a_batch_keeps_its_looks_on_the_way_from_a_worker() -> None:
    batch = replace(COLLATE, instructions={"reader": ("image", letters)})(SAMPLES)
    again = pickle.loads(pickle.dumps(batch))
    assert (again.looks, again.looked, again.media) == (batch.looks, batch.looked, batch.media)


def test_each_look_has_positions_of_its_own() -> None:
    first, *others = asked(("a?", (RED,)), ("b?", (RED,)), ("a?", (RED,)))
    drawn = replace(first, others=tuple(others))
    told: Collate = replace(WORDS, instructions={"reader": ("image", letters)})
    shared, _, longest = WORDS.extent(drawn)
    medium = WORDS.extent(first)[0] - len("a?answer 0")
    assert medium > 0
    assert told.extent(drawn) == (shared + medium, 3, longest)
