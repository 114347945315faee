"""Looks: media with what connectors are told beside them. What becomes of a look is one set of perceptual tokens.

Where no connector reads an instruction, a look is a medium.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

Ids = tuple[int, ...]
"""Token ids of a text."""


@dataclass(frozen=True, slots=True)
class Looks:
    """The looks of a batch at media of one kind.

    ``media`` says which medium each is at, by number within the kind; ``instructions`` holds for each connector that
    reads one the token ids of every look's.
    """

    media: tuple[int, ...]
    instructions: Mapping[str, tuple[Ids, ...]]


class Looking:
    """Numbers the looks at media of one kind while a batch is made: a medium told the same twice is one look.

    Args:
        connectors: those that read an instruction.
    """

    def __init__(self, connectors: Sequence[str]) -> None:
        self._connectors, self._known = connectors, dict[tuple[int, tuple[Ids, ...]], int]()

    def number(self, medium: int, told: tuple[Ids, ...]) -> int:
        """Of a look at the medium of this number, of which ``told`` is what each connector reads beside it."""
        return self._known.setdefault((medium, told), len(self._known))

    @property
    def looks(self) -> Looks:
        told = {name: tuple(each[place] for _, each in self._known) for place, name in enumerate(self._connectors)}
        return Looks(tuple(medium for medium, _ in self._known), told)
