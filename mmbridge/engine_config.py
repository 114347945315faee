"""The engine section of a recipe: what computes the steps of its stages, and where."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import BeforeValidator, Field, field_validator, model_validator

from mmbridge.config import Config

if TYPE_CHECKING:
    from mmbridge.bridge import Bridge
    from mmbridge.engine import Engine
    from mmbridge.ranks import Ranks
    from mmbridge.stage import StageConfig


class TorchEngineConfig(Config):
    """Plain torch. Several processes each have the whole bridge and a share of every batch."""

    kind: Literal["torch"] = "torch"
    device: str | None = None
    """``cpu``, ``cuda``, ``cuda:1`` …; null takes an accelerator where there is one."""

    def build(self, bridge: "Bridge", stage: "StageConfig", steps: int, key: str, ranks: "Ranks") -> "Engine":
        """The engine of a stage; the bridge goes to its device."""
        from mmbridge.device import pick
        from mmbridge.torch_engine import TorchEngine

        bridge.to(pick(self.device, ranks.local))
        return TorchEngine(bridge, stage, steps, key, ranks)


class DeepSpeedEngineConfig(Config):
    """DeepSpeed ZeRO. What is sharded over the processes grows with the stage: nothing (0), optimiser state (1),
    gradients as well (2), and the weights of the LLM and the connectors as well (3). Encoders are whole everywhere.

    Muon steps whole matrices: with it, what trains is whole everywhere, and only stage 3 shards, the frozen LLM.
    """

    kind: Literal["deepspeed"]
    device: str | None = None
    """``cpu`` or ``cuda``; null takes an accelerator where there is one."""
    zero_stage: Literal[0, 1, 2, 3] = 2
    offload_optimizer: bool = False
    """Optimiser state and the step itself in main memory; from stage 1 on."""
    offload_param: bool = False
    """Sharded weights in main memory until they are needed; in stage 3."""
    config: Mapping[str, Any] = {}
    """Further keys of DeepSpeed's own configuration. What the recipe decides is refused here."""

    @field_validator("config")
    @classmethod
    def _ours(cls, given: Mapping[str, Any]) -> Mapping[str, Any]:
        for key, ours in _DECIDED.items():
            section, _, name = key.partition(".")
            inner = given.get(section)
            if (name and isinstance(inner, Mapping) and name in inner) or (not name and section in given):
                raise ValueError(f"{key}: expected keys that the recipe does not decide; set {ours}")
        return given

    @model_validator(mode="after")
    def _apply(self) -> "DeepSpeedEngineConfig":
        if self.offload_optimizer and self.zero_stage == 0:
            raise ValueError("offload_optimizer: expected zero_stage 1, 2 or 3, found 0")
        if self.offload_param and self.zero_stage < 3:
            raise ValueError(f"offload_param: expected zero_stage 3, found {self.zero_stage}")
        return self

    def build(self, bridge: "Bridge", stage: "StageConfig", steps: int, key: str, ranks: "Ranks") -> "Engine":
        """The engine of a stage; the bridge goes to its device."""
        if stage.optim.kind == "adamw":
            from mmbridge.deepspeed_engine import DeepSpeedEngine

            return DeepSpeedEngine(bridge, stage, steps, key, ranks, self)
        if self.zero_stage == 3:
            from mmbridge.sharded_engine import ShardedEngine

            return ShardedEngine(bridge, stage, steps, key, ranks, self)
        return TorchEngineConfig(device=self.device).build(bridge, stage, steps, key, ranks)


_DECIDED = {
    "train_batch_size": "the stage's batch and accumulate",
    "train_micro_batch_size_per_gpu": "the stage's batch",
    "gradient_accumulation_steps": "the stage's accumulate",
    "gradient_clipping": "the stage's optim.clip",
    "optimizer": "the stage's optim",
    "scheduler": "the stage's schedule",
    "bf16": "the stage's precision",
    "fp16": "the stage's precision",
    "torch_autocast": "the stage's precision",
    "zero_optimization.stage": "engine.zero_stage",
    "zero_optimization.offload_optimizer": "engine.offload_optimizer",
    "zero_optimization.offload_param": "engine.offload_param",
}
"""Keys of DeepSpeed's configuration that the recipe has its own for."""


def _torch_unless_said(given: Any) -> Any:
    return {"kind": "torch", **given} if isinstance(given, Mapping) else given


EngineConfig = Annotated[
    TorchEngineConfig | DeepSpeedEngineConfig, Field(discriminator="kind"), BeforeValidator(_torch_unless_said)
]
