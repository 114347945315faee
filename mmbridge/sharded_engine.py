"""Muon under ZeRO. It orthogonalises whole matrices, and ZeRO's optimisers step flat slices of them.

So what trains stays whole in every process, as in the torch engine, and ZeRO-3 shards what is frozen of the LLM, which
is nearly all there is where only connectors train. Stages 0 to 2 shard nothing here.
"""

from collections.abc import Sequence

from torch import Tensor

from mmbridge.bridge import Bridge
from mmbridge.data.batch import Batch
from mmbridge.device import pick
from mmbridge.engine_config import DeepSpeedEngineConfig
from mmbridge.errors import RecipeError
from mmbridge.ranks import Ranks
from mmbridge.stage import StageConfig
from mmbridge.torch_engine import TorchEngine
from mmbridge.zero import initialised, made_whole, nothing


class ShardedEngine(TorchEngine):
    """Plain torch over an LLM whose weights ZeRO-3 shards. Arguments are those of ``DeepSpeedEngine``.

    Raises:
        RecipeError: something inside the LLM trains, or DeepSpeed refuses the configuration.
    """

    def __init__(
        self, bridge: Bridge, stage: StageConfig, steps: int, key: str, ranks: Ranks, config: DeepSpeedEngineConfig
    ) -> None:
        trained = next((name for name, each in bridge.llm.named_parameters() if each.requires_grad), None)
        if trained:
            problem = f"Muon steps whole matrices, and ZeRO-3 shards llm.{trained}"
            raise RecipeError(f"{key}.optim.kind", problem, "set it to adamw, or engine.zero_stage to 2 or less")
        device = pick(config.device, ranks.local)
        bridge.encoders.to(device)
        bridge.connectors.to(device)
        self._device, self._nothing = device, nothing(bridge)
        self._shards = initialised(bridge.llm, None, stage, config)
        super().__init__(bridge, stage, steps, key, ranks)

    def losses(self, batch: Batch, terms: Sequence[int]) -> Tensor:
        return super().losses(batch, terms) if len(batch) else super().losses(self._nothing, terms) * 0

    def close(self) -> None:
        """Takes DeepSpeed's hooks off and makes the LLM whole again."""
        self._shards.destroy()
        made_whole(self.bridge.llm.modules())
        self.bridge.to(self._device)
