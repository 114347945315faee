"""One expansion for all: what samples a record makes for each task."""

import numpy as np
import pytest

from mmbridge.data.record import CAPTION_PROMPTS, Question, Record, sample
from mmbridge.data.sample import Medium, Message, conversation
from mmbridge.data.sources import RecordSource
from mmbridge.errors import DataError
from tests.data.pictures import record

CHAT = Record(
    id="chat",
    messages=conversation(
        ("user", (Medium("image", b"", "a"), "what is it?")),
        ("assistant", ("a cat",)),
        ("user", ("what colour?",)),
        ("assistant", ("black",)),
    ),
)


def said(messages: tuple[Message, ...]) -> list[tuple[str, str]]:
    """Roles and texts, media left out."""
    return [(message.role, "".join(part for part in message.content if isinstance(part, str))) for message in messages]


def test_a_caption_is_asked_for_with_one_of_the_prompts_and_always_the_same() -> None:
    first, again = sample(record(0), "caption", 0), sample(record(0), "caption", 0)
    assert [medium.name for medium in first.messages[0].media] == ["r0"]
    prompt, reply = said(first.messages)
    assert prompt == said(again.messages)[0]
    assert prompt[1] in CAPTION_PROMPTS
    assert reply == ("assistant", "caption 0")
    assert len({said(sample(record(n), "caption", 0).messages)[0] for n in range(30)}) == len(CAPTION_PROMPTS)


def test_truth_of_a_caption() -> None:
    assert dict(sample(record(3), "caption", 0).truth) == {
        "caption": "caption 3",
        "references": ["caption 3", "also 3"],
        "facts": (("circle", "red"),),
        "objects": ("red circle",),
        "split": "test",
    }
    assert sample(Record("x", text="a", references=("b",)), "caption", 0).truth["references"] == ["a", "b"]


def test_questions_and_pope_are_apart() -> None:
    source = RecordSource([record(0), record(1)], "vqa", name="r")
    assert [source[i].id for i in range(len(source))] == ["r0/q0", "r0/q2", "r1/q0", "r1/q2"]
    assert source[1].truth["answers"] == ["circle", "a circle"]
    assert source[1].truth["kind"] == "shape"
    assert said(source[1].messages) == [("user", "what shape?"), ("assistant", "circle")]
    pope = RecordSource([record(0), record(1)], "pope", name="r")
    assert [pope[i].id for i in range(len(pope))] == ["r0/q1", "r1/q1"]
    assert pope[0].truth["question"] == "is there a star?"


def test_all_is_captions_and_questions_or_the_conversation_as_given() -> None:
    source = RecordSource([record(0), CHAT, record(1)], "all", name="r")
    assert [source[i].id for i in range(len(source))] == [
        "r0", "r0/q0", "r0/q2", "r0/q1", "chat", "r1", "r1/q0", "r1/q2", "r1/q1",
    ]  # fmt: skip
    with pytest.raises(IndexError):
        source[len(source)]


def test_turns_share_a_conversation_about_one_medium() -> None:
    questions = tuple(Question(f"q{n}?", (f"a{n}",), "colour") for n in range(5))
    source = RecordSource([Record("r", Medium("image", b"", "a"), questions=questions)], "vqa", name="r", turns=2)
    assert [said(source[i].messages) for i in range(len(source))] == [
        [("user", "q0?"), ("assistant", "a0"), ("user", "q1?"), ("assistant", "a1")],
        [("user", "q2?"), ("assistant", "a2"), ("user", "q3?"), ("assistant", "a3")],
        [("user", "q4?"), ("assistant", "a4")],
    ]
    assert [len(source[i].media) for i in range(3)] == [1, 1, 1]
    assert source[0].truth["question"] == "q1?"


def test_a_conversation_as_caption_and_as_questions() -> None:
    whole = RecordSource([CHAT], "messages", name="r")[0]
    assert whole.messages == CHAT.messages
    assert (whole.truth["question"], whole.truth["answers"]) == ("what colour?", ["black"])
    caption = RecordSource([CHAT], "caption", name="r")[0]
    assert said(caption.messages) == [("user", "what is it?"), ("assistant", "a cat")]
    assert caption.truth["references"] == ["a cat"]
    asked = RecordSource([CHAT], "vqa", name="r")
    assert [asked[i].truth["answers"] for i in range(len(asked))] == [["a cat"], ["black"]]
    assert [len(asked[i].messages) for i in range(2)] == [2, 4]


def test_records_are_read_one_at_a_time() -> None:
    class Watched:
        def __init__(self) -> None:
            self.read: list[int] = []

        def __len__(self) -> int:
            return 1000

        def __getitem__(self, index: int, /) -> Record:
            self.read.append(index)
            return record(index)

    records = Watched()
    source = RecordSource(records, "vqa", name="r", counts=np.tile([1, 2, 1, 0], (1000, 1)))
    assert len(source) == 2000
    assert records.read == []
    assert source[1501].id == "r750/q2"
    assert records.read == [750]


def test_limit() -> None:
    assert len(RecordSource([record(n) for n in range(9)], "all", name="r", limit=5)) == 5
    assert len(RecordSource([record(0)], "all", name="r", limit=50)) == 4


def test_nothing_for_a_task_is_an_error() -> None:
    with pytest.raises(DataError, match=r"^r: expected samples for the task pope, found none; choose another task"):
        RecordSource([CHAT], "pope", name="r")
    with pytest.raises(DataError, match=r"^r: expected samples for the task all, found none"):
        RecordSource([], "all", name="r")
    with pytest.raises(DataError, match=r"^sample x: expected a caption, found none"):
        sample(Record("x"), "caption", 0)
