"""The engine: how one step is computed. The loop, the stages and validation know no more of it than ``Engine``.

``TorchEngine`` is one process of plain torch. An engine of several processes adds up terms and losses over all of
them, and has its own backward, clipping and step; everything else stays as it is.
"""

import math
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.optim.lr_scheduler import LambdaLR

from mmbridge.bridge import Bridge
from mmbridge.checkpoint import State
from mmbridge.cpu_attention import prefer_on_cpu
from mmbridge.data.batch import Batch
from mmbridge.objectives.weighted import WeightedObjectives
from mmbridge.optimiser import hidden_weights, optimisers, scheduler
from mmbridge.stage import StageConfig


class Engine(Protocol):
    """What computes steps for a bridge."""

    bridge: Bridge

    @property
    def names(self) -> tuple[str, ...]:
        """The objectives."""
        ...

    @property
    def lr(self) -> float:
        """The learning rate of the coming step: the first group's."""
        ...

    def terms(self, batches: Sequence[Batch]) -> tuple[int, ...]:
        """How many terms each objective has in these batches, over all processes."""
        ...

    def losses(self, batch: Batch, terms: Sequence[int]) -> Tensor:
        """This batch's part of each objective's weighted mean over ``terms``: (objectives,), in training precision."""
        ...

    def backward(self, losses: Tensor) -> None:
        """Adds the gradient of the sum of the losses."""
        ...

    def gathered(self, losses: Sequence[Tensor]) -> list[list[float]]:
        """Plain numbers, summed over all processes: the one time in a step that the device is waited for."""
        ...

    def step(self) -> float:
        """Clips, steps unless the gradient is not finite, clears it; returns its L2 norm before clipping."""
        ...

    def precision(self) -> AbstractContextManager[object]:
        """What anything that runs the bridge beside training runs in."""
        ...

    def weights(self) -> dict[str, Tensor]:
        """A copy of what trains, by name, in main memory."""
        ...

    def restore(self, weights: Mapping[str, Tensor]) -> None:
        """Puts such a copy back."""
        ...

    def state(self) -> State:
        """A copy of all that the coming steps depend on: what trains, its optimisers and their rates."""
        ...

    def load_state(self, state: State) -> None:
        """Goes on from such a copy."""
        ...


class TorchEngine:
    """One process, one device.

    Args:
        bridge: on its device, with ``requires_grad`` set on what trains; it is put in training mode.
        stage: objectives, optimiser, schedule and precision.
        steps: of the whole stage.
        key: where the stage stands in its recipe, for errors.

    Raises:
        RecipeError: a parameter group matches nothing that trains.
    """

    def __init__(self, bridge: Bridge, stage: StageConfig, steps: int, key: str) -> None:
        self.bridge, self._stage = bridge.train(), stage
        if bridge.device.type == "cpu" and stage.precision == "bfloat16":
            prefer_on_cpu(bridge.llm.model)
        self._module = WeightedObjectives(bridge, stage.objectives)
        self._trainable = {name: each for name, each in bridge.named_parameters() if each.requires_grad}
        self._optimisers = optimisers(self._trainable, hidden_weights(bridge), stage.optim, f"{key}.optim")
        self._schedules = [scheduler(each, stage.schedule, steps) for each in self._optimisers]

    @property
    def names(self) -> tuple[str, ...]:
        return self._module.names

    @property
    def lr(self) -> float:
        return float(self._optimisers[0].param_groups[0]["lr"])

    def terms(self, batches: Sequence[Batch]) -> tuple[int, ...]:
        return self._module.terms(batches)

    def losses(self, batch: Batch, terms: Sequence[int]) -> Tensor:
        with self.precision():
            losses: Tensor = self._module(batch, terms)
        return losses

    def backward(self, losses: Tensor) -> None:
        if losses.requires_grad:  # it does not in a batch of text alone, when only connectors train
            losses.sum().backward()  # type: ignore[no-untyped-call]

    def gathered(self, losses: Sequence[Tensor]) -> list[list[float]]:
        numbers: list[list[float]] = torch.stack(list(losses)).tolist() if losses else []
        return numbers

    def step(self) -> float:
        limit = self._stage.optim.clip
        norm = float(torch.nn.utils.clip_grad_norm_(self._trainable.values(), float("inf") if limit is None else limit))
        if math.isfinite(norm):
            for optimiser, rate in zip(self._optimisers, self._schedules, strict=True):
                optimiser.step()
                rate.step()
        for optimiser in self._optimisers:
            optimiser.zero_grad(set_to_none=True)
        return norm

    def precision(self) -> torch.autocast:
        return torch.autocast(self.bridge.device.type, torch.bfloat16, enabled=self._stage.precision == "bfloat16")

    def weights(self) -> dict[str, Tensor]:
        return {name: each.detach().to("cpu", copy=True) for name, each in self._trainable.items()}

    def restore(self, weights: Mapping[str, Tensor]) -> None:
        for name, parameter in self._trainable.items():
            parameter.detach().copy_(weights[name])

    def state(self) -> State:
        tensors = {f"{name}/weight": each for name, each in self.weights().items()}
        for name, parameter in self._trainable.items():
            for optimiser in self._optimisers:
                for key, value in optimiser.state.get(parameter, {}).items():
                    tensors[f"{name}/{key}"] = value.detach().to("cpu", copy=True)
        return State(tensors, {"schedules": [_rates(each) for each in self._schedules]})

    def load_state(self, state: State) -> None:
        self.restore({name: state.tensors[f"{name}/weight"] for name in self._trainable})
        kept: dict[str, dict[str, Tensor]] = {}
        for path, tensor in state.tensors.items():
            name, _, key = path.rpartition("/")
            if key != "weight":
                kept.setdefault(name, {})[key] = tensor
        for optimiser, schedule, rates in zip(
            self._optimisers, self._schedules, state.values["schedules"], strict=True
        ):
            schedule.load_state_dict(rates)
            for group, rate in zip(optimiser.param_groups, schedule.get_last_lr(), strict=True):
                group["lr"] = rate
            mine = {id(each) for group in optimiser.param_groups for each in group["params"]}
            for name, each in self._trainable.items():
                if id(each) in mine and name in kept:
                    optimiser.state[each] = {key: value.to(each.device) for key, value in kept[name].items()}


def _rates(schedule: LambdaLR) -> dict[str, Any]:
    """A schedule's state without its function, which JSON cannot hold and the recipe gives anew."""
    return {key: value for key, value in schedule.state_dict().items() if key != "lr_lambdas"} | {"lr_lambdas": [None]}
