"""A batch on its way through a bridge, for the objectives: each part runs when one of them first asks for it, and once.

Some losses read what the LLM says, others what connectors or encoders make of media; where no objective of a stage
reads the LLM, it does not run.
"""

from functools import cached_property
from typing import TYPE_CHECKING

from mmbridge.data.batch import Batch
from mmbridge.encoders.base import Features
from mmbridge.llm.prompt import Prompt
from mmbridge.llm.text_states import TextStates, text_states
from mmbridge.objectives.pairs import Pairs
from mmbridge.objectives.queried import Queried
from mmbridge.perceived import Perceived
from mmbridge.ranks import ALONE, Ranks

if TYPE_CHECKING:
    from mmbridge.bridge import Bridge, BridgeOutput


class BatchRun:
    """One forward pass over ``batch``, as far as it is asked for; ``ranks`` make theirs at the same time."""

    def __init__(self, bridge: "Bridge", batch: Batch, ranks: Ranks = ALONE) -> None:
        self.bridge, self.batch, self.ranks = bridge, batch, ranks
        self._pairs: dict[str, Pairs] = {}
        self._queried: dict[str, Queried] = {}

    @cached_property
    def features(self) -> dict[str, Features]:
        """Of the batch's media, by encoder; those that have nothing to see are left out."""
        return self.bridge.encode(self.batch)

    @cached_property
    def perceived(self) -> Perceived:
        """What the LLM reads in place of the media."""
        return self.bridge.perceive(self.batch, self.features)

    @cached_property
    def seen(self) -> list[int]:
        """The samples that show a medium."""
        return showing(self.batch)

    @cached_property
    def texts(self) -> list[tuple[int, ...]]:
        """What the assistant says in the samples of ``seen``, in token ids."""
        return [spoken(self.batch.prompts[each]) for each in self.seen]

    @cached_property
    def said(self) -> TextStates:
        """What the LLM makes of ``texts`` alone."""
        return text_states(self.bridge.llm, self.texts or [()])

    def queried(self, connector: str) -> Queried:
        """What the queries of this connector find in the batch's media."""
        if connector not in self._queried:
            self._queried[connector] = Queried(self, connector)
        return self._queried[connector]

    def pairs(self, connector: str) -> Pairs:
        """The batch's pairs of media and texts, and what this connector makes of them."""
        if connector not in self._pairs:
            self._pairs[connector] = Pairs(self, connector)
        return self._pairs[connector]

    @cached_property
    def output(self) -> "BridgeOutput":
        """Logits at the supervised positions."""
        output: BridgeOutput = self.bridge(self.batch, self.perceived)
        return output


def showing(batch: Batch) -> list[int]:
    """The samples of a batch that show a medium."""
    return [sample for sample, numbers in enumerate(batch.media) if numbers]


def spoken(prompt: Prompt) -> tuple[int, ...]:
    """The token ids that the assistant says, its ends of turns among them."""
    return tuple(token for token, said in zip(prompt.ids, prompt.supervised, strict=True) if said)
