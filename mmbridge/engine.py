"""The engine: how one step is computed. The loop, the stages and validation know no more of it than ``Engine``.

``mmbridge.torch_engine`` is plain torch, ``mmbridge.deepspeed_engine`` is DeepSpeed; the recipe's engine section says
which. Each works in one process or in several that train together.
"""

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Protocol

from torch import Tensor

from mmbridge.bridge import Bridge
from mmbridge.checkpoint import State
from mmbridge.data.batch import Batch
from mmbridge.objectives.weighted import WeightedObjectives
from mmbridge.ranks import Ranks


class Engine(Protocol):
    """What computes steps for a bridge. Where several processes train together, each calls every method alike."""

    bridge: Bridge
    objectives: WeightedObjectives
    ranks: Ranks

    @property
    def names(self) -> tuple[str, ...]:
        """The objectives."""
        ...

    @property
    def intertwined(self) -> bool:
        """Whether a process can run the bridge only while all the others do, and in step with them."""
        ...

    @property
    def lr(self) -> float:
        """The learning rate of the coming step: the first group's."""
        ...

    def terms(self, batches: Sequence[Batch]) -> tuple[int, ...]:
        """How many terms each objective has in these batches."""
        ...

    def losses(self, batch: Batch, terms: Sequence[int]) -> Tensor:
        """This batch's part of each objective's weighted mean over ``terms``: (objectives,), in training precision.

        Zeros for a batch without samples.
        """
        ...

    def backward(self, losses: Tensor, last: bool = True) -> None:
        """Adds the gradient of the sum of the losses; ``last`` at the last batch of a step."""
        ...

    def step(self) -> float:
        """Clips, steps unless the gradient is not finite, clears it; returns its L2 norm before clipping.

        The gradient is the sum of those of all processes, and all of them return the same norm.
        """
        ...

    def drop(self) -> None:
        """Clears the gradient without a step."""
        ...

    def precision(self) -> AbstractContextManager[object]:
        """What anything that runs the bridge beside training runs in."""
        ...

    def weights(self) -> dict[str, Tensor]:
        """A copy of what trains, by name, in main memory."""
        ...

    def restore(self, weights: Mapping[str, Tensor]) -> None:
        """Puts such a copy back."""
        ...

    def close(self) -> None:
        """Leaves the bridge whole; nothing is computed after that."""
        ...

    def state(self) -> State:
        """A copy of all that the coming steps depend on: what trains, its optimisers and their rates."""
        ...

    def load_state(self, state: State) -> None:
        """Goes on from such a copy."""
        ...
