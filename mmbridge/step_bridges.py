"""Bridges along a stage: one every so many steps, kept for good, to see how a bridge became what it is.

    stages/NAME/bridges/step-00000400/     a bridge's folder, as any other

A stage's checkpoints are for going on with it, and are gone when it is finished; these stay.
"""

from pathlib import Path

from torch import Tensor

from mmbridge.bridge import Bridge
from mmbridge.bridge_folder import replaced, write
from mmbridge.engine import Engine
from mmbridge.errors import UserError
from mmbridge.ranks import Ranks
from mmbridge.stage import StageConfig


class StepBridges:
    """Keeps them, whatever engine trains the stage.

    Args:
        bridge: as the stage starts, before an engine shards it.
        stage: its ``checkpoint.bridges`` says how often; never, if it is null.
        folder: where they go.
        ranks: the processes that train together; the main one writes.
    """

    def __init__(self, bridge: Bridge, stage: StageConfig, folder: Path, ranks: Ranks) -> None:
        self._bridge, self._stage, self._folder, self._ranks = bridge, stage, folder, ranks
        self._fixed: dict[str, Tensor] = {}
        """What of the bridge's own does not train here; only if there is use for it, for memory's sake."""
        if stage.checkpoint.bridges is not None:
            trained = {name for name, each in bridge.named_parameters() if each.requires_grad}
            self._fixed = {name: each for name, each in bridge.own_tensors().items() if name not in trained}

    def __call__(self, step: int, engine: Engine) -> None:
        """Once after every step, in every process.

        Raises:
            UserError: the bridge cannot be written.
        """
        every = self._stage.checkpoint.bridges
        if every is None or step % every:
            return
        weights = engine.weights()
        self._bridge.stage, self._bridge.metrics = self._stage.name, {"steps": step}
        if self._ranks.main:
            place = self._folder / f"step-{step:08d}"
            try:
                with replaced(place) as made:
                    write(self._bridge, made, self._fixed | weights)
            except OSError as error:
                problem = f"the bridge of step {step} cannot be written ({error.strerror or error})"
                raise UserError(place, problem, "make room, then --resume") from error
