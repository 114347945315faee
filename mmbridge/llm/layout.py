"""The layout of frozen weights for decoding one token at a time on a CPU.

torch keeps a linear map's weight (out, in), and its product with a single row reads memory at less than half the speed
there is where the map is wide. With a second copy (in, out) it reads nearly all of it. Microseconds for one row in
float32, one thread of an AMD EPYC, as torch has it and turned: 192 → 4,000: 106 and 66; 512 → 1,408: 84 and 70;
512 → 32,000: 6,350 and 4,190. Maps that are not wide, several rows and bfloat16 gain nothing and are left as they are.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.nn import functional

from mmbridge.device import free_memory

WIDE = 2
"""How many times as many outputs as inputs a map must have."""

CPU = torch.device("cpu")
SHARE = 0.25
"""Of the memory that is free, what the copies may take."""


class TurnedWeights:
    """Second copies of a model's wide maps, made when they are first needed and kept."""

    def __init__(self) -> None:
        self._copies: dict[nn.Linear, tuple[int, Tensor]] = {}

    @contextmanager
    def of(self, model: nn.Module) -> Iterator[None]:
        """While inside, products with one row use the copies, where there is memory for all of them."""
        wide = [module for module in model.modules() if type(module) is nn.Linear and _gains(module)]
        missing = [module for module in wide if not self._has(module)]
        if sum(module.weight.nbytes for module in missing) > SHARE * free_memory(CPU):
            yield
            return
        for module in missing:
            self._copies[module] = module.weight._version, module.weight.detach().t().contiguous()
        for module in wide:
            setattr(module, "forward", _Turned(module, self._copies[module][1]))  # noqa: B010
        try:
            yield
        finally:
            for module in wide:
                del module.forward

    def _has(self, module: nn.Linear) -> bool:
        """Whether there is a copy, and of the weight as it is now."""
        return module in self._copies and self._copies[module][0] == module.weight._version


def _gains(module: nn.Linear) -> bool:
    weight = module.weight
    return (
        weight.device.type == "cpu"
        and weight.dtype == torch.float32
        and not weight.requires_grad
        and weight.shape == (module.out_features, module.in_features)
        and module.out_features >= WIDE * module.in_features
    )


class _Turned:
    """A linear map of one row by the turned weight (in, out), and of several by its own."""

    def __init__(self, module: nn.Linear, weight: Tensor) -> None:
        self._module, self._weight = module, weight

    def __call__(self, inputs: Tensor) -> Tensor:
        module = self._module
        if inputs.numel() != module.in_features or torch.is_autocast_enabled("cpu"):
            return functional.linear(inputs, module.weight, module.bias)
        output = inputs @ self._weight
        return output if module.bias is None else output + module.bias
