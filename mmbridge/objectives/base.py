"""What an objective is: a sum over terms that can be counted before anything runs.

A step's loss is the sum over all its batches, on all processes, divided by the number of terms in all of them. That
number is known before the first backward pass, so a step's gradient is that of one big batch however it is cut.
"""

from typing import Protocol

from torch import Tensor

from mmbridge.data.batch import Batch
from mmbridge.objectives.run import BatchRun


class Objective(Protocol):
    """One loss.

    ``joint`` says whether processes send each other something in it: then all of them compute it for every batch, be
    theirs one without samples.
    """

    joint: bool

    def terms(self, batch: Batch) -> int:
        """How many terms the sum over this batch has."""
        ...

    def __call__(self, run: BatchRun) -> Tensor:
        """The sum of the terms, a scalar in float32."""
        ...
