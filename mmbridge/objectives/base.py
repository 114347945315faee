"""What an objective is: a sum over terms that can be counted before anything runs.

A step's loss is the sum over all its batches, on all processes, divided by the number of terms in all of them. That
number is known before the first backward pass, so a step's gradient is that of one big batch however it is cut.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, Protocol, runtime_checkable

from torch import Tensor

from mmbridge.data.batch import Batch
from mmbridge.objectives.run import BatchRun

if TYPE_CHECKING:
    from mmbridge.bridge import Bridge

Part = Literal[
    "answers", "perceived", "said",
    "assignment", "shared assignment", "transport", "contrasted transport", "divergence", "paired divergence",
    "similarities", "matches", "words", "reconstruction", "items",
]  # fmt: skip
"""What can be read of a run: what the LLM ``answers``, the tokens ``perceived`` and what is ``said`` of them; the words
both are assigned to, alone or with those of all processes; how far tokens are from words, of others too or not;
how far both are apart as sets, of a batch or a medium; of pairs of media and texts how near they are, which match,
and the words that follow; what is hidden of media; and how near ``items`` are that go together."""


@dataclass(frozen=True, slots=True)
class Reads:
    """A part of a ``BatchRun``; ``connector`` is whose pairs or media it is of."""

    part: Part
    connector: str | None = None


class Objective(Protocol):
    """One loss.

    ``reads`` says what has to run for it, so that it can be counted.
    ``joint`` says whether processes send each other something in it: then all of them compute it for every batch, be
    theirs one without samples.
    """

    joint: bool

    @property
    def reads(self) -> tuple[Reads, ...]: ...

    def terms(self, batch: Batch) -> int:
        """How many terms the sum over this batch has."""
        ...

    def __call__(self, run: BatchRun) -> Tensor:
        """The sum of the terms, a scalar in float32."""
        ...


@runtime_checkable
class CountsWords(Protocol):
    """An objective that has to know how often the stage's texts say each word, from so many ``draws``, if any."""

    draws: int

    def count(self, frequencies: Tensor) -> None:
        """Takes them, (K,) of total 1."""
        ...


@runtime_checkable
class Loading(Protocol):
    """An objective with frozen parts of its own, which come from where the bridge's do."""

    def load(self, bridge: "Bridge") -> None:
        """Reads them, onto the bridge's device.

        Raises:
            RecipeError: they cannot be found or read.
        """
        ...


@runtime_checkable
class Telling(Protocol):
    """An objective with ``figures`` of the last batch beside its loss."""

    figures: dict[str, float]
