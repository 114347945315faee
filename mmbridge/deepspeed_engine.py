"""DeepSpeed: the same steps, with what they need sharded over the processes by ZeRO.

ZeRO: Memory Optimizations Toward Training Trillion Parameter Models
Samyam Rajbhandari, Jeff Rasley, Olatunji Ruwase, Yuxiong He, arXiv 1910.02054

differs from plain DeepSpeed: frozen encoders stay out of it, whole in every process (they are run by methods other than
``forward``, which ZeRO-3 does not see, and are small beside the LLM). Trainable weights stay float32 and products are
computed under autocast, as in the torch engine, so the two give the same steps. DeepSpeed's own checkpoints, which are
pickles, are neither written nor read: state goes by parameter, whole.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from deepspeed.utils import (
    safe_get_full_fp32_param,
    safe_get_full_optimizer_state,
    safe_set_full_fp32_param,
    safe_set_full_optimizer_state,
)
from torch import Tensor, nn

from mmbridge.checkpoint import State
from mmbridge.data.batch import Batch
from mmbridge.engine_config import DeepSpeedEngineConfig
from mmbridge.objectives.weighted import WeightedObjectives
from mmbridge.torch_engine import held
from mmbridge.zero import ZeroEngine, gathered, initialised


class DeepSpeedEngine(ZeroEngine):
    """LLM and connectors under ``deepspeed.initialize``, with the optimiser."""

    def _start(self, config: DeepSpeedEngineConfig) -> Any:
        (self._optimiser,) = self._optimisers
        self._compute = engine = initialised(Sharded(self.objectives), self._optimiser, self._stage, config)
        return engine

    def backward(self, losses: Tensor, last: bool = True) -> None:
        self._engine.set_gradient_accumulation_boundary(last)
        self._engine.backward(losses.sum() * self.ranks.count, scale_wrt_gas=False)  # DeepSpeed takes the mean of ranks

    def step(self) -> float:
        if self._zero == 0:  # where DeepSpeed neither tells the norm nor looks whether it is finite
            gradients = [each.grad for each in self._trainable.values() if each.grad is not None]
            norm = float(nn.utils.get_total_norm(gradients))
            if not math.isfinite(norm):
                self.drop()
                return norm
        self._engine.step()
        if self._zero:
            norm = float(self._engine.get_global_grad_norm()) if self._engine.was_step_applied() else math.inf
        if math.isfinite(norm):
            self._rates.go_to(self._rates.taken + 1)
        return norm

    def drop(self) -> None:
        """DeepSpeed clears its shards of a gradient without a step only if the norm is not finite: it is told so."""
        optimiser = self._engine.optimizer
        if self._zero == 0:
            optimiser.zero_grad()
            return
        name, told = ("_get_norm_groups", [math.inf]) if self._zero == 3 else ("scaled_global_norm", math.inf)
        setattr(optimiser, name, lambda: told)
        self._engine.step()
        delattr(optimiser, name)

    def weights(self) -> dict[str, Tensor]:
        return {name: self._whole(each, None) for name, each in self._trainable.items()}

    def restore(self, weights: Mapping[str, Tensor]) -> None:
        for name, each in self._trainable.items():
            with gathered(each):
                each.detach().copy_(weights[name])
            if self._zero:
                safe_set_full_fp32_param(each, weights[name].to(self._device))

    def state(self) -> State:
        self._link()
        tensors = {f"{name}/weight": each for name, each in self.weights().items()}
        made: dict[str, Tensor] = next((each for each in self._optimiser.state.values() if each), {})
        for key, value in made.items():
            for name, each in self._trainable.items():
                tensors[f"{name}/{key}"] = value.clone() if key == "step" else self._whole(each, key)
        return State(tensors, {"taken": self._rates.taken})

    def load_state(self, state: State) -> None:
        self._make_optimiser_state()
        self.restore({name: state.tensors[f"{name}/weight"] for name in self._trainable})
        for name, each in self._trainable.items():
            for key, value in held(state, name).items():
                if key == "step":
                    for made in self._optimiser.state.values():
                        made["step"].copy_(value)
                elif self._zero:
                    safe_set_full_optimizer_state(each, value.to(self._device), key)
                else:
                    self._optimiser.state[each][key].copy_(value)
        self._rates.go_to(state.values["taken"])

    def _make_optimiser_state(self) -> None:
        """DeepSpeed makes it when the first step is taken: one on nothing, at a rate of zero."""
        for group in self._optimiser.param_groups:
            group["lr"] = 0.0
        for place in range(self._stage.accumulate):
            losses = self.losses(Batch((), {}, ()), [1] * len(self.names))
            self.backward(losses, last=place + 1 == self._stage.accumulate)
        self._engine.step()
        self._link()

    def _link(self) -> None:
        """DeepSpeed links shards of state to parameters once, when only the first group's have been made."""
        if self._zero in (1, 2):
            self._engine.optimizer._hp_optimizer_states_linked = False
            self._engine.optimizer._lazy_init_hp_params_optimizer_state()

    def _whole(self, parameter: nn.Parameter, key: str | None) -> Tensor:
        """A parameter, or what the optimiser has of it, in main memory."""
        if self._zero == 0:
            found = parameter.detach() if key is None else self._optimiser.state[parameter][key]
        elif key is None:
            found = safe_get_full_fp32_param(parameter)
        else:
            found = safe_get_full_optimizer_state(parameter, key)
        return found.to("cpu", copy=True)


class Sharded(nn.Module):
    """What DeepSpeed sees of a bridge: the LLM and the connectors. The rest it only runs."""

    def __init__(self, objectives: WeightedObjectives) -> None:
        super().__init__()
        self.llm, self.connectors = objectives.bridge.llm, objectives.bridge.connectors
        self.__dict__["objectives"] = objectives  # not a submodule

    def forward(self, batch: Batch, terms: Sequence[int]) -> Tensor:
        losses: Tensor = self.__dict__["objectives"](batch, terms)
        return losses
