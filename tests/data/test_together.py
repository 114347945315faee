"""Texts about one medium that are drawn together: each is a sample of its own, and the medium is opened once."""

import pickle
from typing import Any

import pytest
from PIL import Image

from mmbridge.data import collate
from mmbridge.data.batch import Batch
from mmbridge.data.media import Limits, open_image
from mmbridge.data.record import Question, Record, Task
from mmbridge.data.sample import Medium, Sample, conversation
from mmbridge.data.sources import RecordSource
from mmbridge.data.world.source import WorldSource
from tests.data.test_loader import COLLATE


def record(name: str = "r", source: Any = None) -> Record:
    medium = Medium("image", source or Image.new("RGB", (8, 8)), name)
    questions = tuple(Question(f"q{n}?", (f"a{n}",)) for n in range(5))
    return Record(name, medium, "one", references=("one", "two", "three"), questions=questions)


def said(sample: Sample) -> list[list[str]]:
    """What the assistant says in a draw, conversation by conversation."""
    return [
        [str(part) for message in each.messages if message.role == "assistant" for part in message.content]
        for each in (sample, *sample.others)
    ]


@pytest.mark.parametrize(
    ("task", "turns", "together", "expected"),
    [
        ("caption", 1, 1, [[["one"]]]),
        ("caption", 1, 2, [[["one"], ["two"]]]),
        ("caption", 1, 9, [[["one"], ["two"], ["three"]]]),
        ("vqa", 1, 2, [[["a0"], ["a1"]], [["a2"], ["a3"]], [["a4"]]]),
        ("vqa", 2, 2, [[["a0", "a1"], ["a2", "a3"]], [["a4"]]]),
        ("all", 1, 5, [[["one"], ["two"], ["three"]], [["a0"], ["a1"], ["a2"], ["a3"], ["a4"]]]),
    ],
)
def test_draws(task: Task, turns: int, together: int, expected: list[list[list[str]]]) -> None:
    source = RecordSource([record("a"), record("b")], task, turns=turns, together=together)
    assert [said(source[index]) for index in range(len(source))] == expected * 2


def test_texts_drawn_together_have_ids_and_truths_of_their_own() -> None:
    drawn = RecordSource([record()], "caption", together=3)[0]
    assert [each.id for each in (drawn, *drawn.others)] == ["r", "r/c1", "r/c2"]
    assert [each.truth["caption"] for each in (drawn, *drawn.others)] == ["one", "two", "three"]
    assert {tuple(each.truth["references"]) for each in (drawn, *drawn.others)} == {("one", "two", "three")}


def test_a_medium_of_several_samples_is_opened_and_prepared_once(monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[str] = []

    def counted(medium: Medium, limits: Limits) -> Image.Image:
        opened.append(medium.name)
        return open_image(medium, limits)

    monkeypatch.setattr(collate, "open_medium", counted)
    source = RecordSource([record("a"), record("b")], "vqa", together=3)
    batch = COLLATE([source[0], source[2], source[1]])  # a, b, and more of a
    assert [prompt.sample for prompt in batch.prompts] == [
        "a/q0",
        "a/q1",
        "a/q2",
        "b/q0",
        "b/q1",
        "b/q2",
        "a/q3",
        "a/q4",
    ]
    assert batch.media == ((0,), (0,), (0,), (1,), (1,), (1,), (0,), (0,))
    assert opened == ["a", "b"]
    assert {name: len(views) for name, views in batch.views.items()} == dict.fromkeys(batch.views, 2)


def test_files_are_one_medium_by_their_path(tmp_path: Any) -> None:
    for name in ("x.png", "y.png"):
        Image.new("RGB", (8, 8)).save(tmp_path / name)
    samples = [
        Sample(str(n), conversation(("user", (Medium("image", tmp_path / name), "?")), ("assistant", ("yes",))))
        for n, name in enumerate(("x.png", "y.png", "x.png"))
    ]
    assert COLLATE(samples).media == ((0,), (1,), (0,))


def test_a_bad_sample_takes_no_other_with_it() -> None:
    damaged = RecordSource([record("bad", b"damaged"), record("good")], "vqa", together=2)
    batch = COLLATE([damaged[0], damaged[3]])
    assert [bad.id for bad in batch.bad] == ["bad/q0", "bad/q1"]
    assert [prompt.sample for prompt in batch.prompts] == ["good/q0", "good/q1"]
    assert batch.media == ((0,), (0,))


def test_a_batch_keeps_its_media_on_the_way_from_a_worker() -> None:
    source = WorldSource("train", 2, 0, "vqa", together=3)
    batch = COLLATE([source[0], source[len(source) - 1]])
    again = pickle.loads(pickle.dumps(batch))
    assert again.media == batch.media
    assert set(batch.media) == {(0,), (1,)}


def test_media_are_numbered_by_kind_where_nobody_says_which_they_are() -> None:
    batch = COLLATE([record_sample("a"), record_sample("b")])
    assert Batch(batch.prompts, batch.views, batch.samples).media == ((0,), (1,))


def record_sample(name: str) -> Sample:
    return RecordSource([record(name)], "caption")[0]
