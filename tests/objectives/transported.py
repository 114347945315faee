"""Perceptual tokens of unequal number in the place of those that connectors make, and what NumPy makes of them."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mmbridge.bridge import Bridge
from mmbridge.data.batch import Batch
from mmbridge.objectives.base import Objective
from mmbridge.objectives.run import BatchRun
from mmbridge.perceived import Perceived
from tests.tiny_bridge import tiny_recipe, tiny_stage

Array = NDArray[np.float64]


def bridge_of(parts: Path, *objectives: dict[str, Any]) -> Bridge:
    return Bridge(tiny_recipe(parts, tiny_stage(objectives=[*objectives])))


@dataclass(frozen=True, slots=True)
class Held:
    """A batch's ``tokens`` by medium, leaves; which ``media`` samples show; and their ``texts``."""

    run: BatchRun
    tokens: list[Tensor]
    media: list[tuple[int, ...]]
    texts: list[list[int]]

    @classmethod
    def of(cls, bridge: Bridge, batch: Batch) -> "Held":
        """Of 3 to 6 tokens."""
        media = [numbers for numbers in batch.media if numbers]
        draw = torch.Generator().manual_seed(0)
        lengths = [3 + number % 4 for number in range(1 + max(each for numbers in media for each in numbers))]
        tokens = [torch.randn(each, bridge.llm.width, generator=draw).requires_grad_() for each in lengths]
        run = BatchRun(bridge, batch)
        run.__dict__["perceived"] = Perceived([[tokens[each] for each in numbers] for numbers in batch.media], [])
        texts = [
            [token for token, said in zip(prompt.ids, prompt.supervised, strict=True) if said]
            for prompt, numbers in zip(batch.prompts, batch.media, strict=True)
            if numbers
        ]
        return cls(run, tokens, media, texts)

    def loss(self, objective: Objective) -> float:
        """With gradients at ``tokens``."""
        found = objective(self.run)
        torch.autograd.backward(found)
        assert found.dtype == torch.float32
        return float(found.detach())

    def of_medium(self, number: int) -> Array:
        return self.tokens[number].detach().double().numpy()

    def words(self, text: Sequence[int]) -> Array:
        table: Any = self.run.bridge.llm.model.get_input_embeddings().weight
        return np.stack([table[token].detach().double().numpy() for token in text])


def cost(x: Array, y: Array) -> Array:
    """1 − cos, one by one."""
    found = np.empty((len(x), len(y)))
    for i, one in enumerate(x):
        for j, other in enumerate(y):
            found[i, j] = 1 - one @ other / (np.linalg.norm(one) * np.linalg.norm(other))
    return found


def slope(plan: Array, x: Array, y: Array) -> Array:
    """The gradient of Σ P · cost with respect to x, where P is fixed."""
    found = np.zeros_like(x)
    for i, one in enumerate(x):
        for j, other in enumerate(y):
            length, far = np.linalg.norm(one), np.linalg.norm(other)
            found[i] -= plan[i, j] * (other / (length * far) - (one @ other) * one / (length**3 * far))
    return found
