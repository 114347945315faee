"""What the queries of a connector find in the media of a batch, for all objectives that read it: made once.

Symbols: V views, R rows, M queries, W width of the Q-Former. A medium that several samples show has one view, read
once. An X-Former's queries Z_q go on as Z', having read the features of its second encoder; a Q-Former's go on as they
are.
"""

from collections.abc import Sequence
from functools import cached_property
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from mmbridge.connectors.connector import Connector
from mmbridge.connectors.keys_values import KeysValues
from mmbridge.connectors.qformer import QFormerOutput
from mmbridge.connectors.xformer import Details, XFormer, qformer_in
from mmbridge.data.batch import Batch
from mmbridge.data.sample import MediumKind
from mmbridge.encoders.base import Features
from mmbridge.errors import RecipeError

if TYPE_CHECKING:
    from mmbridge.objectives.run import BatchRun


class Queried:
    """Of the samples that show a medium of the connector's: the first medium of each.

    A batch without any stands for one sample of nothing, which is not ``real``: the modules must run in every process.
    ``medium`` (S,) says which view each shows, ``count`` how many of them are real; ``samples`` are their numbers.
    ``xformer`` is the connector's resampler if it is one.
    """

    def __init__(self, run: "BatchRun", name: str) -> None:
        self._run, self._name = run, name
        connector = run.bridge.connectors[name]
        assert isinstance(connector, Connector)
        resampler = connector.resampler
        self._connector, self.xformer = connector, resampler if isinstance(resampler, XFormer) else None
        qformer = qformer_in(resampler)
        assert qformer is not None
        self.qformer = qformer
        shown = places(run.batch, run.bridge.recipe.connectors[name].medium)
        self.samples, self.count, self.real = [sample for sample, _ in shown], len(shown), len(shown) > 0
        self.medium = torch.tensor([medium for _, medium in shown] or [0], device=run.bridge.device)

    @cached_property
    def features(self) -> tuple[Features, ...]:
        """Of the V views, as the resampler reads them.

        Raises:
            RecipeError: media are cut into several views.
        """
        bridge = self._run.bridge
        if self.real:
            names = bridge.recipe.connectors[self._name].encoders
            found = self._connector.handed([self._run.features[each] for each in names])
            if any(tiling is not None for tiling in found[0].tilings):
                problem = "expected one view a medium for this objective, found tiles"
                raise RecipeError(f"connectors.{self._name}.encoders", problem, "set aspect to something else")
            return found
        return self._connector.handed(bridge.blanks(self._name))

    @cached_property
    def image(self) -> KeysValues:
        """Keys and values of the V views, for all passes."""
        return self.qformer.image(self.features[0].values, self.features[0].mask)

    @cached_property
    def details(self) -> Details | None:
        """What an X-Former's second encoder sees in the V views."""
        return self.xformer.details(self.features[1].values, self.features[1].mask) if self.xformer else None

    @cached_property
    def queries(self) -> QFormerOutput:
        """What the queries find in the V views."""
        return self.qformer.read("queries", self.image)

    @cached_property
    def states(self) -> Tensor:
        """(V, M, W), as they go on."""
        return self.ended(self.queries, self.details)

    def ended(self, passed: QFormerOutput, details: Details | None) -> Tensor:
        """(R, M, W): the queries of a pass as they go on; ``details`` are those of its rows, of an X-Former."""
        assert passed.queries is not None
        if self.xformer is None:
            return passed.queries
        assert details is not None
        found: Tensor = self.xformer.dual(passed.queries, details)
        return found


def places(batch: Batch, kind: MediumKind) -> list[tuple[int, int]]:
    """The samples that show a medium of this kind, and the number of the first that each shows."""
    found = []
    for sample, (prompt, numbers) in enumerate(zip(batch.prompts, batch.media, strict=True)):
        mine = [
            number
            for placeholder, number in zip(prompt.placeholders, numbers, strict=True)
            if placeholder.medium == kind
        ]
        if mine:
            found.append((sample, mine[0]))
    return found


def joint_details(details: Sequence[Details | None]) -> Details | None:
    """Rows of several, one below the other."""
    first, *others = details
    for each in others:
        first = None if first is None or each is None else first.above(each)
    return first
