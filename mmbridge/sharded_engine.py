"""Muon under ZeRO. It orthogonalises whole matrices, and ZeRO's optimisers step flat slices of them.

So what trains stays whole in every process, as in the torch engine, and ZeRO-3 shards what is frozen of the LLM, which
is nearly all there is where only connectors train. Stages 0 to 2 shard nothing here.
"""

from typing import Any

from mmbridge.bridge import Bridge
from mmbridge.engine_config import DeepSpeedEngineConfig
from mmbridge.errors import RecipeError
from mmbridge.ranks import Ranks
from mmbridge.stage import StageConfig
from mmbridge.zero import ZeroEngine, initialised


class ShardedEngine(ZeroEngine):
    """Plain torch over an LLM whose weights ZeRO-3 shards.

    Raises:
        RecipeError: something inside the LLM trains, or what ``ZeroEngine`` raises.
    """

    def __init__(
        self, bridge: Bridge, stage: StageConfig, steps: int, key: str, ranks: Ranks, config: DeepSpeedEngineConfig
    ) -> None:
        trained = next((name for name, each in bridge.llm.named_parameters() if each.requires_grad), None)
        if trained:
            problem = f"Muon steps whole matrices, and ZeRO-3 shards llm.{trained}"
            raise RecipeError(f"{key}.optim.kind", problem, "set it to adamw, or engine.zero_stage to 2 or less")
        super().__init__(bridge, stage, steps, key, ranks, config)

    def _start(self, config: DeepSpeedEngineConfig) -> Any:
        return initialised(self.bridge.llm, None, self._stage, config)
