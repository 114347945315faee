"""A medium with everything a data set knows about it, and the samples that makes.

Every format, the digits and the embedded world yield ``Record``s; ``sample`` below is the one place that turns a
record into a caption, a question or a conversation.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal
from zlib import crc32

from mmbridge.data.sample import Medium, Message, Role, Sample, conversation
from mmbridge.errors import DataError

Task = Literal["caption", "vqa", "pope", "all", "messages"]
"""What a source yields: captions, questions (``pope`` ones apart), conversations as given, or ``all`` a record has."""

Part = Literal["caption", "vqa", "pope", "messages"]
PARTS: tuple[Part, ...] = ("caption", "vqa", "pope", "messages")

CAPTION_PROMPTS = (
    "Describe the image.", "Describe the picture.", "What is in the picture?", "What does the image show?",
    "Write a caption.",
)  # fmt: skip
"""What a caption is asked for with, unless a source says otherwise."""


@dataclass(frozen=True, slots=True)
class Question:
    """``answers`` are the strings that count as right, the preferred one first; ``kind`` groups the scores."""

    question: str
    answers: tuple[str, ...]
    kind: str = ""


@dataclass(frozen=True, slots=True)
class Record:
    """One row of a data set: a medium (none in a text-only conversation) and what is known about it.

    ``text`` is the caption and ``references`` are other captions that count; ``facts`` and ``objects`` are ground
    truth for fact-F1 and CHAIR. ``messages`` is a conversation as given: it carries its own media.
    """

    id: str
    medium: Medium | None = None
    text: str | None = None
    references: tuple[str, ...] = ()
    facts: tuple[tuple[str, ...], ...] = ()
    objects: tuple[Any, ...] = ()
    questions: tuple[Question, ...] = ()
    split: str | None = None
    messages: tuple[Message, ...] | None = None

    @property
    def media(self) -> tuple[Medium, ...]:
        """Its media in the order they are read, those of its conversation if it is one."""
        if self.messages is not None:
            return tuple(medium for message in self.messages for medium in message.media)
        return () if self.medium is None else (self.medium,)

    def with_media(self, media: Iterable[Medium]) -> "Record":
        """The same record with as many other media in their places."""
        others = iter(media)
        if self.messages is None:
            return replace(self, medium=next(others, None))
        messages = [
            replace(each, content=tuple(next(others) if isinstance(part, Medium) else part for part in each.content))
            for each in self.messages
        ]
        return replace(self, messages=tuple(messages))

    def counts(self) -> tuple[int, int, int, int]:
        """How many captions, questions, ``pope`` questions and conversations it holds, in the order of ``PARTS``.

        A conversation also counts as a caption (its first reply) and as one question for every reply.
        """
        pope = sum(question.kind == "pope" for question in self.questions)
        replies = len(_replies(self.messages)) if self.messages else 0
        caption = int(self.text is not None or replies > 0)
        return caption, len(self.questions) - pope or replies, pope, int(self.messages is not None)


def sample(record: Record, part: Part, index: int, prompts: Sequence[str] = CAPTION_PROMPTS, turns: int = 1) -> Sample:
    """Sample ``index`` of a part of a record.

    Args:
        part: ``vqa`` samples ask ``turns`` questions each, in one conversation about the medium; the others hold one.
        index: of a caption, 0 is the record's own and those that follow are its further references.
        prompts: what a caption is asked for with; a record always gets the same one.

    Raises:
        DataError: the record has nothing of that part.
    """
    replies = _replies(record.messages or ())
    if part == "caption" and record.text is not None:
        references = captions(record)
        turn = (prompts[crc32(record.id.encode()) % len(prompts)], references[index])
        name = f"{record.id}/c{index}" if index else record.id
        return Sample(name, _asked(record, [turn]), _truth(record, caption=references[index], references=references))
    if part in ("vqa", "pope") and record.questions:
        return _questions(record, index, turns, pope=part == "pope")
    if part == "messages" and record.messages is not None:
        return Sample(record.id, record.messages, _exchange(record, replies[-1]) if replies else _truth(record))
    if part == "pope" or record.messages is None or not replies:
        raise DataError(f"sample {record.id}", f"expected {_NAMES[part]}, found none", "choose another task")
    if part == "caption":
        said = _words(record.messages[replies[0]])
        return Sample(record.id, record.messages[: replies[0] + 1], _truth(record, caption=said, references=[said]))
    number = min((index + 1) * turns, len(replies)) - 1
    shown = record.messages[: replies[number] + 1]
    return Sample(f"{record.id}/q{number}", shown, _exchange(record, replies[number]))


def captions(record: Record) -> list[str]:
    """A record's own caption, and its references that say it otherwise."""
    own = () if record.text is None else (record.text,)
    return list(dict.fromkeys((*own, *record.references)))


_NAMES: dict[Part, str] = {
    "caption": "a caption", "vqa": "questions", "pope": "pope questions", "messages": "a conversation",
}  # fmt: skip


def _questions(record: Record, index: int, turns: int, *, pope: bool) -> Sample:
    """Questions of a record, ``turns`` of them (one, if ``pope``); the last is the truth."""
    turns = 1 if pope else turns
    numbered = [(number, each) for number, each in enumerate(record.questions) if (each.kind == "pope") == pope]
    chosen = numbered[index * turns : (index + 1) * turns]
    number, last = chosen[-1]
    truth = _truth(record, question=last.question, answers=list(last.answers), kind=last.kind)
    return Sample(f"{record.id}/q{number}", _asked(record, [(q.question, q.answers[0]) for _, q in chosen]), truth)


def _asked(record: Record, turns: Sequence[tuple[str, str]]) -> tuple[Message, ...]:
    """User and assistant in turn, the medium before the first words."""
    medium = () if record.medium is None else (record.medium,)
    pairs: list[tuple[Role, Sequence[str | Medium]]] = []
    for turn, (question, answer) in enumerate(turns):
        pairs += [("user", (*medium, question) if turn == 0 else (question,)), ("assistant", (answer,))]
    return conversation(*pairs)


def _replies(messages: Sequence[Message]) -> list[int]:
    return [index for index, message in enumerate(messages) if message.role == "assistant"]


def _exchange(record: Record, reply: int) -> dict[str, Any]:
    """Truth of a conversation: what message ``reply`` answers, and what it says."""
    assert record.messages is not None
    question = _words(record.messages[reply - 1]) if reply else ""
    return _truth(record, question=question, answers=[_words(record.messages[reply])], kind="")


def _words(message: Message) -> str:
    return " ".join(part.strip() for part in message.content if isinstance(part, str))


def _truth(record: Record, **known: Any) -> dict[str, Any]:
    """What evaluation compares with: ``known`` and whichever of facts, objects and split the record has."""
    for key in ("facts", "objects", "split"):
        if getattr(record, key):
            known[key] = getattr(record, key)
    return known
