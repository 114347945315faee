"""What it would gain to read a stage's features instead of computing them, from closed formulas; nothing is trained."""

from dataclasses import dataclass

from mmbridge.bridge import Bridge
from mmbridge.data.loader import Draws
from mmbridge.data.mixture import Mixture
from mmbridge.flops import StepFlops
from mmbridge.frozen import freeze
from mmbridge.llm.packing import Packing
from mmbridge.objectives.weighted import WeightedObjectives
from mmbridge.recipe import Recipe
from mmbridge.stage import StageConfig
from mmbridge.trainable import matched

WORTHWHILE = 1.05
"""A smaller gain is lost in noise."""
_SAMPLES = 32


@dataclass(frozen=True, slots=True)
class Gain:
    """FLOPs of a stage's first samples: those of ``encoders``, and the ``rest``."""

    encoders: int
    rest: int

    @property
    def ratio(self) -> float:
        """How many times as fast a step is at most, when it reads all its features."""
        return 1 + self.encoders / self.rest if self.rest else 1.0


def gain(recipe: Recipe, stage: StageConfig, mixture: Mixture) -> Gain:
    """Over whole batches of the stage, until there are enough samples; those that cannot be used count for nothing.

    Args:
        mixture: of the stage.

    Raises:
        RecipeError: the bridge cannot be built, or the stage trains what is not there.
    """
    bridge = freeze(Bridge(recipe.without_features(), stage.template))
    parameters = dict(bridge.named_parameters())
    for index, pattern in enumerate(stage.train):
        for name in matched(parameters, pattern, f"stages.{stage.name}.train.{index}"):
            parameters[name].requires_grad_(True)
    if stage.packing:
        bridge.llm.packing = Packing(bridge.llm)
    objectives = WeightedObjectives(bridge, stage.objectives, f"stages.{stage.name}.objectives")
    flops, collate = StepFlops(objectives), bridge.collate(templates=stage.data.templates)
    encoders = rest = 0
    draws = Draws(mixture)
    for start in range(0, _SAMPLES, stage.batch):
        batch = collate([draws[draw] for draw in range(start, start + stage.batch)])
        own = flops.encoders(batch)
        encoders, rest = encoders + own, rest + flops.needed(batch) - own
    return Gain(encoders, rest)
