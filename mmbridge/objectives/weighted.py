"""A bridge and the objectives it is trained towards, as one module: what an engine runs forward and backward."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from mmbridge.bridge import Bridge
from mmbridge.data.batch import Batch
from mmbridge.objectives.config import ObjectiveConfig
from mmbridge.objectives.run import BatchRun


class WeightedObjectives(nn.Module):
    """Batches to weighted losses, one for each of ``names``."""

    def __init__(self, bridge: Bridge, configs: Sequence[ObjectiveConfig]) -> None:
        super().__init__()
        self.bridge = bridge
        self.names = tuple(config.kind for config in configs)
        self._objectives = tuple((config.build(), config.weight) for config in configs)

    def terms(self, batches: Sequence[Batch]) -> tuple[int, ...]:
        """How many terms each objective has in these batches together."""
        return tuple(sum(objective.terms(batch) for batch in batches) for objective, _ in self._objectives)

    def forward(self, batch: Batch, terms: Sequence[int]) -> Tensor:
        """This batch's part of each objective's weighted mean over ``terms`` terms: (objectives,), float32."""
        run = BatchRun(self.bridge, batch)
        weighed = zip(self._objectives, terms, strict=True)
        parts = [objective(run) * (weight / max(1, count)) for (objective, weight), count in weighed]
        return torch.stack(parts)
