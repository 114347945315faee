"""What an objective is: a sum over terms that can be counted before anything runs.

A step's loss is the sum over all its batches, on all processes, divided by the number of terms in all of them. That
number is known before the first backward pass, so a step's gradient is that of one big batch however it is cut.
"""

from dataclasses import dataclass
from typing import Literal, Protocol

from torch import Tensor

from mmbridge.data.batch import Batch
from mmbridge.objectives.run import BatchRun

PairReading = Literal["similarities", "matches", "words"]
"""What can be read of pairs: how near media and texts are, which match, and the words that follow."""


@dataclass(frozen=True, slots=True)
class Reads:
    """What an objective reads of a ``BatchRun``: ``pairs`` of a connector, or what the LLM says where it has none."""

    connector: str | None = None
    pairs: PairReading | None = None


class Objective(Protocol):
    """One loss.

    ``reads`` says what has to run for it, so that it can be counted.
    ``joint`` says whether processes send each other something in it: then all of them compute it for every batch, be
    theirs one without samples.
    """

    joint: bool
    reads: Reads

    def terms(self, batch: Batch) -> int:
        """How many terms the sum over this batch has."""
        ...

    def __call__(self, run: BatchRun) -> Tensor:
        """The sum of the terms, a scalar in float32."""
        ...
