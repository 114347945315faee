"""Plain torch, in one process or several: each computes its share of a step, and gradients are summed.

Losses are parts of means over the terms of all processes, so the sum of the gradients is that of one big batch.
"""

import math
from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor

from mmbridge.bridge import Bridge
from mmbridge.checkpoint import State
from mmbridge.data.batch import Batch
from mmbridge.llm.packing import Packing
from mmbridge.objectives.weighted import WeightedObjectives
from mmbridge.optimiser import Rates, hidden_weights, optimisers
from mmbridge.ranks import ALONE, Ranks
from mmbridge.stage import StageConfig


class TorchEngine:
    """The whole bridge in every process, on one device each.

    Args:
        bridge: on its device, with ``requires_grad`` set on what trains; it is put in training mode.
        stage: objectives, optimiser, schedule and precision.
        steps: of the whole stage.
        key: where the stage stands in its recipe, for errors.
        ranks: the processes that train together; all have the same bridge.

    Raises:
        RecipeError: a parameter group matches nothing that trains.
    """

    def __init__(self, bridge: Bridge, stage: StageConfig, steps: int, key: str, ranks: Ranks = ALONE) -> None:
        self.bridge, self.ranks, self._stage = bridge.train(), ranks, stage
        if stage.packing:
            with self.precision():
                bridge.llm.packing = Packing(bridge.llm)
        self.objectives = WeightedObjectives(bridge, stage.objectives, f"{key}.objectives", ranks)
        self._compute: Callable[[Batch, Sequence[int]], Tensor] = self.objectives
        self._trainable = {name: each for name, each in bridge.named_parameters() if each.requires_grad}
        self._optimisers = optimisers(self._trainable, hidden_weights(bridge), stage.optim, f"{key}.optim")
        self._rates = Rates(self._optimisers, stage.schedule, steps)

    @property
    def names(self) -> tuple[str, ...]:
        return self.objectives.names

    @property
    def intertwined(self) -> bool:
        return False

    @property
    def lr(self) -> float:
        return self._rates.first

    def terms(self, batches: Sequence[Batch]) -> tuple[int, ...]:
        return self.objectives.terms(batches)

    @property
    def runs_on_nothing(self) -> bool:
        """Whether modules run without samples too, on two tokens that count for nothing, as other processes need it."""
        return self.objectives.joint

    def losses(self, batch: Batch, terms: Sequence[int]) -> Tensor:
        if not len(batch) and not self.runs_on_nothing:
            return torch.zeros(len(self.names), device=self.bridge.device)
        with self.precision():
            return self._compute(batch, terms) if len(batch) else self._compute(self.bridge.nothing(), terms) * 0

    def backward(self, losses: Tensor, last: bool = True) -> None:
        if losses.requires_grad:
            losses.sum().backward()  # type: ignore[no-untyped-call]

    def step(self) -> float:
        self._join()
        limit = self._stage.optim.clip
        norm = float(torch.nn.utils.clip_grad_norm_(self._trainable.values(), float("inf") if limit is None else limit))
        if math.isfinite(norm):
            for optimiser in self._optimisers:
                optimiser.step()
            self._rates.go_to(self._rates.taken + 1)
        self.drop()
        return norm

    def drop(self) -> None:
        for optimiser in self._optimisers:
            optimiser.zero_grad(set_to_none=True)

    def precision(self) -> torch.autocast:
        return torch.autocast(self.bridge.device.type, torch.bfloat16, enabled=self._stage.precision == "bfloat16")

    def weights(self) -> dict[str, Tensor]:
        return {name: each.detach().to("cpu", copy=True) for name, each in self._trainable.items()}

    def restore(self, weights: Mapping[str, Tensor]) -> None:
        for name, parameter in self._trainable.items():
            parameter.detach().copy_(weights[name])

    def close(self) -> None:
        """It is whole already."""

    def _join(self) -> None:
        """Sums gradients over the processes; one that has none, for want of samples, adds zeros.

        A parameter that no process has one of is left without: the optimiser passes it over, as in a single process.
        """
        if self.ranks.count > 1:
            trained = self._trainable.values()
            having = self.ranks.total([float(each.grad is not None) for each in trained])
            for each, count in zip(trained, having, strict=True):
                if count and each.grad is None:
                    each.grad = torch.zeros_like(each)
            self.ranks.sum_(each.grad for each in trained if each.grad is not None)

    def state(self) -> State:
        tensors = {f"{name}/weight": each for name, each in self.weights().items()}
        for name, parameter in self._trainable.items():
            for optimiser in self._optimisers:
                for key, value in optimiser.state.get(parameter, {}).items():
                    tensors[f"{name}/{key}"] = value.detach().to("cpu", copy=True)
        return State(tensors, {"taken": self._rates.taken})

    def load_state(self, state: State) -> None:
        self.restore({name: state.tensors[f"{name}/weight"] for name in self._trainable})
        self._rates.go_to(state.values["taken"])
        for optimiser in self._optimisers:
            mine = {id(each) for group in optimiser.param_groups for each in group["params"]}
            for name, parameter in self._trainable.items():
                kept = held(state, name)
                if id(parameter) in mine and kept:
                    optimiser.state[parameter] = {key: each.to(parameter.device) for key, each in kept.items()}


def held(state: State, name: str) -> dict[str, Tensor]:
    """What an optimiser's state has of a parameter."""
    start = f"{name}/"
    found = {path.removeprefix(start): each for path, each in state.tensors.items() if path.startswith(start)}
    return {key: each for key, each in found.items() if key != "weight" and "/" not in key}
