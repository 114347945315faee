"""A bridge and the objectives it is trained towards, as one module: what an engine runs forward and backward."""

from collections.abc import Sequence
from itertools import chain

import torch
from torch import Tensor, nn

from mmbridge.bridge import Bridge
from mmbridge.data.batch import Batch
from mmbridge.objectives.base import CountsWords, Loading, Telling
from mmbridge.objectives.config import ObjectiveConfig
from mmbridge.objectives.reconstruction import Reconstruction
from mmbridge.objectives.run import BatchRun
from mmbridge.ranks import ALONE, Ranks


class WeightedObjectives(nn.Module):
    """Batches to weighted losses, one for each of ``names``.

    ``joint`` if one of them is and there are several processes; ``reads`` what any of them does.

    Args:
        bridge: what they are of.
        configs: the objectives.
        key: where they stand in their recipe, for errors.
        ranks: the processes that train together.

    Raises:
        RecipeError: an objective reads a connector that there is not, or that lacks what it reads.
    """

    def __init__(
        self, bridge: Bridge, configs: Sequence[ObjectiveConfig], key: str = "objectives", ranks: Ranks = ALONE
    ) -> None:
        super().__init__()
        self.bridge, self.ranks = bridge, ranks
        self.names = tuple(config.kind for config in configs)
        self._objectives = tuple(
            (config.build(bridge.recipe.connectors, f"{key}.{index}"), config.weight)
            for index, config in enumerate(configs)
        )
        for objective, _ in self._objectives:
            if isinstance(objective, Loading):
                objective.load(bridge)
        self.reads = frozenset(chain.from_iterable(objective.reads for objective, _ in self._objectives))
        self.joint = ranks.count > 1 and any(objective.joint for objective, _ in self._objectives)

    @property
    def counting(self) -> list[CountsWords]:
        """Those that have to know how often words are said before they run."""
        return [each for each, _ in self._objectives if isinstance(each, CountsWords) and each.draws]

    @property
    def reconstructions(self) -> dict[str, Reconstruction]:
        """Those of hidden patches, by their connector."""
        return {each.connector: each for each, _ in self._objectives if isinstance(each, Reconstruction)}

    @property
    def figures(self) -> dict[str, float]:
        """What objectives tell of the last batch beside their losses, by ``objective/figure``."""
        named = zip(self.names, self._objectives, strict=True)
        return {
            f"{name}/{figure}": value
            for name, (objective, _) in named
            if isinstance(objective, Telling)
            for figure, value in objective.figures.items()
        }

    def terms(self, batches: Sequence[Batch]) -> tuple[int, ...]:
        """How many terms each objective has in these batches together."""
        return tuple(sum(objective.terms(batch) for batch in batches) for objective, _ in self._objectives)

    def forward(self, batch: Batch, terms: Sequence[int]) -> Tensor:
        """This batch's part of each objective's weighted mean over ``terms`` terms: (objectives,), float32."""
        run = BatchRun(self.bridge, batch, self.ranks)
        weighed = zip(self._objectives, terms, strict=True)
        parts = [objective(run) * (weight / max(1, count)) for (objective, weight), count in weighed]
        return torch.stack(parts)
