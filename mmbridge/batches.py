"""A stage's data as batches for its bridge."""

import math

from mmbridge.bridge import Bridge
from mmbridge.data.loader import Loader
from mmbridge.ranks import ALONE, Ranks
from mmbridge.stage import StageConfig


def training_batches(bridge: Bridge, stage: StageConfig, seed: int, ranks: Ranks = ALONE) -> tuple[Loader, int]:
    """This process's batches of a whole stage in their order, and how many steps they are.

    Raises:
        DataError: a source cannot be read or holds nothing for its task.
    """
    mixture = stage.data.build(seed)
    steps = steps_of(stage, len(mixture), ranks.count)
    passes = stage.accumulate if stage.budget is None else 1
    loader = Loader(
        mixture,
        bridge.collate(templates=stage.data.templates),
        batch=stage.batch * stage.accumulate // passes,
        batches=steps * passes,
        accumulate=passes,
        budget=stage.budget,
        packed=stage.packing and bridge.llm.packs,
        workers=stage.data.workers,
        on_bad_sample=stage.data.on_bad_sample,
        ranks=ranks,
    )
    return loader, steps


def steps_of(stage: StageConfig, draws: int, processes: int) -> int:
    """How many steps a stage has. Steps given as epochs are rounded up, so that every sample is seen.

    Args:
        draws: in an epoch of its data.
    """
    if stage.steps is not None:
        return stage.steps
    assert stage.epochs is not None
    return math.ceil(stage.epochs * draws / (stage.batch * stage.accumulate * processes))
