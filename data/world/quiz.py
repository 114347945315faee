"""A text and conversations that each go on from it: what the small language model is pretrained on."""

from dataclasses import dataclass

Turns = tuple[tuple[str, str], ...]
"""(role, text) pairs, the user first."""


@dataclass(frozen=True, slots=True)
class Quiz:
    """``told`` stands at the head of the first user turn of each of the ``talks``, which know nothing of each other.

    Training reads the text once for all of them, and each answer is worth as much as one asked alone.
    """

    told: str
    talks: tuple[Turns, ...]


def answered(question: str, answer: str) -> Turns:
    """A conversation of one question."""
    return ("user", question), ("assistant", answer)
